"""Numbers and names of the kernel's interface, verbatim, under the header that they come from.

Written out because Python's `socket` does not have them and a server's machine has no kernel headers. They are part of
the kernel's ABI and never change.
"""

from __future__ import annotations

# linux/tcp.h. The option's value is the name of an upper layer protocol.
TCP_ULP = 31
TLS_ULP_NAME = b"tls"

# linux/socket.h (not exported to userspace, hence in everybody's own code).
SOL_TLS = 282

# linux/tls.h: socket options at level SOL_TLS.
TLS_TX = 1
TLS_RX = 2
TLS_TX_MAX_PAYLOAD_LEN = 5  # u16, since Linux 6.19

# linux/tls.h: control messages at level SOL_TLS; the data is one byte, the record's ContentType.
TLS_SET_RECORD_TYPE = 1
TLS_GET_RECORD_TYPE = 2

# linux/tls.h: tls_crypto_info.version.
TLS_1_2_VERSION = 0x0303
TLS_1_3_VERSION = 0x0304

# linux/tls.h: tls_crypto_info.cipher_type.
TLS_CIPHER_AES_GCM_128 = 51
TLS_CIPHER_AES_GCM_256 = 52
TLS_CIPHER_CHACHA20_POLY1305 = 54

# net/tls/tls_proc.c: counters of the network namespace. The file is there once the tls module is.
PROC_NET_TLS_STAT = "/proc/net/tls_stat"

/* SPDX-License-Identifier: MIT */
/* Between credentials and sessions. */
#ifndef CRYPTO_TLS_INT_H
#define CRYPTO_TLS_INT_H

#include <gnutls/gnutls.h>
#include "crypto/tls.h"

enum tls_kind { TLS_X509, TLS_PSK, TLS_ANON };

struct tls_creds {
    struct obj obj;
    int endpoint;                   /* enum: client, server */
    bool verify_peer;
    char *dir, *priority;
    enum tls_kind kind;
    gnutls_credentials_type_t type;
    void *cred;                     /* of ->type */
};

#endif

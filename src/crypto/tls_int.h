/* SPDX-License-Identifier: MIT */
/* Between credentials and sessions, and the library behind both. */
#ifndef CRYPTO_TLS_INT_H
#define CRYPTO_TLS_INT_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
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

/*
 * What is used of GnuTLS. It is opened with the first credentials: it brings seven libraries along, which every start would pay with a
 * millisecond.
 */
#define TLS_LIB(X) \
    X(alert_get) X(alert_get_name) X(alert_send) X(alert_send_appropriate) X(anon_allocate_client_credentials) X(anon_allocate_server_credentials) \
    X(anon_free_client_credentials) X(anon_free_server_credentials) X(anon_set_server_dh_params) X(bye) X(certificate_allocate_credentials) \
    X(certificate_free_credentials) X(certificate_server_set_request) X(certificate_set_dh_params) X(certificate_set_x509_crl_file) \
    X(certificate_set_x509_key_file2) X(certificate_set_x509_trust_file) X(certificate_verification_status_print) X(certificate_verify_peers3) \
    X(credentials_set) X(deinit) X(dh_params_deinit) X(dh_params_import_pkcs3) X(dh_params_init) X(error_is_fatal) X(free) X(handshake) X(init) \
    X(load_file) X(priority_deinit) X(priority_init) X(priority_set_direct) X(psk_allocate_client_credentials) X(psk_allocate_server_credentials) \
    X(psk_free_client_credentials) X(psk_free_server_credentials) X(psk_set_client_credentials) X(psk_set_server_credentials_file) \
    X(psk_set_server_dh_params) X(record_check_pending) X(record_get_direction) X(record_recv) X(record_send) X(server_name_set) X(strerror) \
    X(transport_get_int) X(transport_set_int2) X(x509_crt_deinit) X(x509_crt_get_activation_time) X(x509_crt_get_expiration_time) X(x509_crt_list_import2) \
    X(x509_crt_list_verify)
struct tls_lib {
#define X(fn) typeof(&gnutls_##fn) fn;
    TLS_LIB(X)
#undef X
};
extern struct tls_lib tls_lib;
/* ANY. Must have succeeded before ->fn of tls_lib is called. */
bool tls_lib_open(struct err *e);

#endif

/* SPDX-License-Identifier: MIT */
/* GnuTLS, opened when it is first used. */
#include <dlfcn.h>
#include <pthread.h>
#include "crypto/tls_int.h"

struct tls_lib tls_lib;
static char trouble[256];                   /* why it cannot be used, or empty */

static void take(void *so, void *fn, const char *name)
{
    *(void **)fn = dlsym(so, name);
    if (!*(void **)fn)
        snprintf(trouble, sizeof trouble, "it lacks %s", name);
}

static void open_once(void)
{
    void *so = dlopen("libgnutls.so.30", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(trouble, sizeof trouble, "%s", dlerror());
        return;
    }
#define X(fn) take(so, &tls_lib.fn, "gnutls_" #fn);
    TLS_LIB(X)
#undef X
}

bool tls_lib_open(struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_once);
    return !trouble[0] || err_set(e, ERR_GENERIC, "cannot use GnuTLS: %s", trouble);
}

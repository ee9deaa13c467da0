/* SPDX-License-Identifier: MIT */
/* What --version of each program prints: the version, and the libraries of this build. */
#include "base/bits.h"
#include "core/help.h"

#ifdef CONFIG_URING
#define HAVE_URING true
#else
#define HAVE_URING false
#endif
#ifdef CONFIG_SLIRP
#define HAVE_SLIRP true
#else
#define HAVE_SLIRP false
#endif
#ifdef CONFIG_ZLIB
#define HAVE_ZLIB true
#else
#define HAVE_ZLIB false
#endif
#ifdef CONFIG_ZSTD
#define HAVE_ZSTD true
#else
#define HAVE_ZSTD false
#endif
#ifdef CONFIG_SECCOMP
#define HAVE_SECCOMP true
#else
#define HAVE_SECCOMP false
#endif
#ifdef CONFIG_GNUTLS
#define HAVE_GNUTLS true
#else
#define HAVE_GNUTLS false
#endif
#ifdef CONFIG_NETTLE
#define HAVE_NETTLE true
#else
#define HAVE_NETTLE false
#endif
#ifdef CONFIG_CURL
#define HAVE_CURL true
#else
#define HAVE_CURL false
#endif
#ifdef CONFIG_FUSE
#define HAVE_FUSE true
#else
#define HAVE_FUSE false
#endif

static const struct { const char *name; bool have; } libraries[] = {
    { "io_uring", HAVE_URING }, { "slirp (-netdev user)", HAVE_SLIRP }, { "zlib (gzip, qcow2)", HAVE_ZLIB }, { "zstd (qcow2)", HAVE_ZSTD },
    { "seccomp (-sandbox)", HAVE_SECCOMP }, { "gnutls (TLS)", HAVE_GNUTLS }, { "nettle (LUKS, secrets)", HAVE_NETTLE }, { "libcurl (http, https)", HAVE_CURL },
    { "fuse3 (export fuse)", HAVE_FUSE },
};

void help_version(const char *prog, struct str *out)
{
    str_printf(out, "%s version %s\n", prog, BP_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(libraries); i++)
        str_printf(out, "  %-24s %s\n", libraries[i].name, libraries[i].have ? "yes" : "not in this build");
}

/* SPDX-License-Identifier: MIT */
#include "base/sock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/str.h"

bool sock_port_ok(const char *port, struct err *e)
{
    size_t digits = strspn(port, "0123456789");
    if (!*port)
        return err_set(e, ERR_VALUE, "the port is empty");
    if (port[digits] || (digits < 10 && strtoul(port, NULL, 10) <= 65535))
        return true;
    return err_set(e, ERR_VALUE, "port %.40s is not within 0..65535", port);
}

unsigned sock_resolve_all(struct sock_addr out[SOCK_MAX_ADDRS], const char *host, const char *port, int family, int socktype, bool passive,
                          bool numeric, struct err *e)
{
    struct addrinfo hints = { .ai_family = family, .ai_socktype = socktype }, *res;
    unsigned n = 0;
    hints.ai_flags = (passive ? AI_PASSIVE : 0) | (numeric ? AI_NUMERICHOST : 0);
    if (host && !*host)
        host = NULL;
    if (!sock_port_ok(port, e))
        return 0;
    int r = getaddrinfo(host, port, &hints, &res);
    if (r) {
        err_set(e, ERR_VALUE, "cannot resolve address '%s:%s': %s", host ? host : "", port, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
        return 0;
    }
    for (struct addrinfo *ai = res; ai && n < SOCK_MAX_ADDRS; ai = ai->ai_next) {
        memset(&out[n], 0, sizeof out[n]);
        memcpy(&out[n].any, ai->ai_addr, MIN(ai->ai_addrlen, (socklen_t)sizeof(struct sockaddr_un)));
        out[n++].len = ai->ai_addrlen;
    }
    freeaddrinfo(res);
    return n;
}

bool sock_resolve(struct sock_addr *out, const char *host, const char *port, int family, int socktype, bool passive,
                  struct err *e)
{
    struct sock_addr all[SOCK_MAX_ADDRS];
    unsigned n = sock_resolve_all(all, host, port, family, socktype, passive, false, e);
    if (n)
        *out = all[0];
    return n != 0;
}

bool sock_unix(struct sock_addr *out, const char *path, bool abstract, bool tight, struct err *e)
{
    size_t n = strlen(path), max = sizeof out->un.sun_path - (abstract ? 1 : 0);
    memset(out, 0, sizeof *out);
    out->un.sun_family = AF_UNIX;
    if (!n && !abstract)
        return err_set(e, ERR_VALUE, "the path of a unix socket is empty");
    if (n > max - (abstract ? 0 : 1))
        return err_set(e, ERR_VALUE, "unix socket path '%s' is too long (at most %zu bytes)", path, max - (abstract ? 0 : 1));
    memcpy(out->un.sun_path + (abstract ? 1 : 0), path, n);
    out->len = abstract && !tight ? sizeof out->un : (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return true;
}

bool sock_split(const char *text, char **host, char **port, struct err *e)
{
    const char *colon, *h = text;
    size_t hlen;
    if (*text == '[') {
        const char *end = strchr(text, ']');
        h = text + 1;
        colon = end ? end + 1 : NULL;
        hlen = end ? (size_t)(end - h) : 0;
    } else {
        colon = strrchr(text, ':');
        hlen = colon ? (size_t)(colon - h) : 0;
    }
    if (!colon || *colon != ':' || !colon[1])
        return err_set(e, ERR_VALUE, "'%s' is not HOST:PORT", text);
    *host = xstrndup(h, hlen);
    *port = xstrdup(colon + 1);
    return true;
}

void sock_host_port(const struct sock_addr *a, char host[64], char port[8])
{
    host[0] = port[0] = 0;
    if (a->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->in.sin_addr, host, 64);
        snprintf(port, 8, "%u", ntohs(a->in.sin_port));
    } else if (a->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a->in6.sin6_addr, host, 64);
        snprintf(port, 8, "%u", ntohs(a->in6.sin6_port));
    }
}

const char *sock_format(const struct sock_addr *a, char buf[SOCK_TEXT])
{
    char host[64], port[8];
    if (a->len && a->any.sa_family == AF_UNIX) {
        size_t off = offsetof(struct sockaddr_un, sun_path), n = a->len > off ? a->len - off : 0;
        if (n && !a->un.sun_path[0])
            snprintf(buf, SOCK_TEXT, "@%.*s", (int)strnlen(a->un.sun_path + 1, n - 1), a->un.sun_path + 1);
        else
            snprintf(buf, SOCK_TEXT, "%.*s", (int)n, a->un.sun_path);
        return buf;
    }
    sock_host_port(a, host, port);
    snprintf(buf, SOCK_TEXT, a->len && a->any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return buf;
}

/* ---- who holds an address ---- */

/* The inode of the socket bound to @a, from /proc/net; 0 if unknown. */
static unsigned long holder_inode(const struct sock_addr *a, int socktype)
{
    bool v6 = a->any.sa_family == AF_INET6;
    const char *file = a->any.sa_family == AF_UNIX ? "/proc/net/unix" : socktype == SOCK_DGRAM ? (v6 ? "/proc/net/udp6" : "/proc/net/udp")
                                                                      : (v6 ? "/proc/net/tcp6" : "/proc/net/tcp");
    unsigned port = a->any.sa_family == AF_UNIX ? 0 : ntohs(v6 ? a->in6.sin6_port : a->in.sin_port);
    char line[512], want[SOCK_TEXT];
    unsigned long inode = 0;
    FILE *f = fopen(file, "re");
    if (!f)
        return 0;
    sock_format(a, want);
    while (!inode && fgets(line, sizeof line, f)) {
        unsigned lport, state;
        unsigned long n;
        char path[256] = "";
        if (a->any.sa_family == AF_UNIX) {
            if (sscanf(line, "%*x: %*x %*x %*x %*x %*x %lu %255s", &n, path) == 2 && str_eq(path, want))
                inode = n;
        } else if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u %lu", &lport, &state, &n) == 3
                   && lport == port && (state == 0x0a || socktype == SOCK_DGRAM)) {
            inode = n;
        }
    }
    fclose(f);
    return inode;
}

static bool pid_has_inode(const char *pid, const char *want)
{
    char path[64], link[64];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    DIR *d = opendir(path);
    for (struct dirent *de; !found && d && (de = readdir(d));) {
        ssize_t n = readlinkat(dirfd(d), de->d_name, link, sizeof link - 1);
        found = n > 0 && (link[n] = 0, str_eq(link, want));
    }
    if (d)
        closedir(d);
    return found;
}

bool sock_holder(const struct sock_addr *a, int socktype, char *buf, size_t n)
{
    unsigned long inode = holder_inode(a, socktype);
    char want[48], path[64], comm[32] = "?";
    bool found = false;
    DIR *d = inode ? opendir("/proc") : NULL;
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    for (struct dirent *de; !found && d && (de = readdir(d));) {
        if (de->d_name[0] < '1' || de->d_name[0] > '9' || !pid_has_inode(de->d_name, want))
            continue;
        found = true;
        snprintf(path, sizeof path, "/proc/%.20s/comm", de->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(comm, sizeof comm, f))
            comm[strcspn(comm, "\n")] = 0;
        if (f)
            fclose(f);
        snprintf(buf, n, "'%s' (pid %.20s)", comm, de->d_name);
    }
    if (d)
        closedir(d);
    return found;
}

static bool busy_error(const struct sock_addr *a, int socktype, int os_errno, struct err *e)
{
    char text[SOCK_TEXT], holder[96] = "";
    const char *verb = socktype == SOCK_STREAM ? "listen on" : "bind to";
    sock_format(a, text);
    if (os_errno != EADDRINUSE)
        return err_os(e, os_errno, "cannot %s %s", verb, text);
    err_set(e, ERR_BUSY, "cannot %s %s: %s%s%s", verb, text, strerror(os_errno),
            sock_holder(a, socktype, holder, sizeof holder) ? " by " : "", holder);
    e->os_errno = os_errno;
    return false;
}

/*
 * A socket file without a socket behind it. Asked with a datagram socket: a live stream socket answers EPROTOTYPE, a live
 * datagram socket accepts, and the owner notices nothing.
 */
static bool unix_is_stale(const struct sock_addr *a)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool stale = fd >= 0 && connect(fd, &a->any, a->len) < 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return stale;
}

/* bind(), which takes the place of a stale socket file; 0 or an errno. */
static int bind_fresh(int fd, const struct sock_addr *a)
{
    int failed = bind(fd, &a->any, a->len) < 0 ? errno : 0;
    if (failed != EADDRINUSE || a->any.sa_family != AF_UNIX || !a->un.sun_path[0] || !unix_is_stale(a))
        return failed;
    unlink(a->un.sun_path);
    return bind(fd, &a->any, a->len) < 0 ? errno : 0;
}

/* Bound and, with @backlog, listening; 0 or an errno. No end signal finds the name of a unix socket made and not yet known. */
static int bind_known(int fd, const struct sock_addr *a, int backlog, struct exit_file **file)
{
    sigset_t before;
    exit_files_hold(&before);
    int failed = bind_fresh(fd, a);
    if (!failed && file && a->any.sa_family == AF_UNIX && a->un.sun_path[0])
        *file = exit_file_new(a->un.sun_path);
    if (!failed && backlog && listen(fd, backlog) < 0)
        failed = errno;
    exit_files_release(&before);
    return failed;
}

static int bound(int fd, const struct sock_addr *a, int socktype, int backlog, struct exit_file **file, struct err *e)
{
    struct exit_file *made = NULL;
    int failed = bind_known(fd, a, backlog, file ? &made : NULL);
    if (file)
        *file = failed ? NULL : made;
    if (!failed)
        return fd;
    busy_error(a, socktype, failed, e);
    exit_file_remove(made);
    close(fd);
    return -1;
}

/* A descriptor in reserve, for those who come when there is none: a socket with a connection that nobody takes wakes its loop again and again. */
static _Atomic int reserve = -1;

static void keep_reserve(void)
{
    if (reserve >= 0)
        return;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), none = -1;
    if (!atomic_compare_exchange_strong(&reserve, &none, fd) && fd >= 0)
        close(fd);
}

int sock_take(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int spare = fd < 0 && (errno == EMFILE || errno == ENFILE) ? atomic_exchange(&reserve, -1) : -1;
    if (spare >= 0) {
        close(spare);
        int unwanted = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (unwanted >= 0)
            close(unwanted);
    }
    keep_reserve();
    return fd;
}

int sock_listen(const struct sock_addr *a, int backlog, struct exit_file **file, struct err *e)
{
    int one = 1, fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        err_os(e, errno, "cannot make a socket");
        return -1;
    }
    keep_reserve();
    if (a->any.sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)) {
        int off = 0;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    return bound(fd, a, SOCK_STREAM, backlog, file, e);
}

int sock_bind_dgram(const struct sock_addr *a, bool shared, struct exit_file **file, struct err *e)
{
    int one = 1, fd = socket(a->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        err_os(e, errno, "cannot make a socket");
        return -1;
    }
    if (shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return bound(fd, a, SOCK_DGRAM, 0, file, e);
}

int sock_connect_start(const struct sock_addr *a, int socktype, bool *pending, struct err *e)
{
    char text[SOCK_TEXT];
    int fd = socket(a->any.sa_family, socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *pending = false;
    if (fd < 0) {
        err_os(e, errno, "cannot make a socket");
        return -1;
    }
    if (connect(fd, &a->any, a->len) == 0)
        return fd;
    if (errno == EINPROGRESS) {
        *pending = true;
        return fd;
    }
    err_os(e, errno, "cannot connect to %s", sock_format(a, text));
    close(fd);
    return -1;
}

int sock_connect_finish(int fd)
{
    int err = 0;
    socklen_t n = sizeof err;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0 ? errno : err;
}

bool sock_local(int fd, struct sock_addr *out)
{
    memset(out, 0, sizeof *out);
    out->len = sizeof(struct sockaddr_un);
    return getsockname(fd, &out->any, &out->len) == 0;
}

bool sock_peer(int fd, struct sock_addr *out)
{
    memset(out, 0, sizeof *out);
    out->len = sizeof(struct sockaddr_un);
    return getpeername(fd, &out->any, &out->len) == 0;
}

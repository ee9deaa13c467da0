/* SPDX-License-Identifier: MIT */
/* The session of the ssh driver: the library, the server's key, who we are. All of it waits, and so is done on a worker. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "block/ssh_int.h"

enum { HASH_MAX = 32 };
#define CONNECT_NS INT64_C(30000000000)

struct ssh_functions ssh;
static char trouble[256];               /* why the library cannot be used, or empty */

static void open_library(void)
{
    void *so = dlopen("libssh.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(trouble, sizeof trouble, "%s", dlerror());
        return;
    }
#define LOAD(f) ssh.f = (typeof(ssh.f))dlsym(so, #f); if (!ssh.f) snprintf(trouble, sizeof trouble, "it has no %s()", #f);
    SSH_FUNCTIONS(LOAD)
}

struct login {
    const struct blk_ssh *s;
    ssh_session session;
    ssh_channel channel;
    int fd;                             /* -1: the session's */
    struct err *e;
};

static bool failed(const struct login *g, const char *what)
{
    return err_set(g->e, ERR_GENERIC, "'%s': %s: %.160s", g->s->name, what, ssh.ssh_get_error(g->session));
}

/* ---- whose the server's key is ---- */

static const enum ssh_publickey_hash_type hash_types[] = {
    [SSH_HASH_MD5] = SSH_PUBLICKEY_HASH_MD5, [SSH_HASH_SHA1] = SSH_PUBLICKEY_HASH_SHA1, [SSH_HASH_SHA256] = SSH_PUBLICKEY_HASH_SHA256,
};

static void hex_of(const unsigned char *b, size_t n, char out[2 * HASH_MAX + 1])
{
    out[0] = 0;
    for (size_t i = 0; i < n && i < HASH_MAX; i++)
        snprintf(out + 2 * i, 3, "%02x", b[i]);
}

/* Hexadecimal digits, in pairs with ':' between them or not. */
static bool same_hex(const char *hex, const char *given)
{
    for (; *given; given++) {
        if (*given == ':')
            continue;
        if (!*hex || (*given | 0x20) != *hex)
            return false;
        hex++;
    }
    return !*hex;
}

/* The hash of the server's key in hexadecimal and as ssh-keygen shows it; the caller frees *@text by ssh_string_free_char(). */
static bool key_hash(const struct login *g, enum ssh_publickey_hash_type type, char hex[2 * HASH_MAX + 1], char **text)
{
    ssh_key key = NULL;
    unsigned char *hash = NULL;
    size_t n = 0;
    if (ssh.ssh_get_server_publickey(g->session, &key))
        return failed(g, "cannot tell the server's key");
    int r = ssh.ssh_get_publickey_hash(key, type, &hash, &n);
    ssh.ssh_key_free(key);
    if (r)
        return failed(g, "cannot make the hash of the server's key");
    hex_of(hash, n, hex);
    *text = ssh.ssh_get_fingerprint_hash(type, hash, n);
    ssh.ssh_clean_pubkey_hash(&hash);
    return true;
}

static bool check_hash(const struct login *g)
{
    static const char *const names[] = { "md5", "sha1", "sha256" };
    char hex[2 * HASH_MAX + 1], *text;
    if (!key_hash(g, hash_types[g->s->hash_type], hex, &text))
        return false;
    const char *base64 = text && str_starts(text, "SHA256:") ? text + 7 : NULL;
    bool same = same_hex(hex, g->s->hash) || str_eq(base64, g->s->hash) || (base64 && str_eq(text, g->s->hash));
    ssh.ssh_string_free_char(text);
    return same || err_set(g->e, ERR_VALUE, "'%s': the %s hash of the server's key is %s, not %.100s", g->s->name, names[g->s->hash_type], hex, g->s->hash);
}

static bool check_known_hosts(const struct login *g)
{
    const char *why = NULL;
    char hex[2 * HASH_MAX + 1], *text = NULL;
    switch (ssh.ssh_session_is_known_server(g->session)) {
    case SSH_KNOWN_HOSTS_OK: return true;
    case SSH_KNOWN_HOSTS_CHANGED: why = "is another than known_hosts has for it: perhaps somebody else answers in its place"; break;
    case SSH_KNOWN_HOSTS_OTHER: why = "is of another type than known_hosts has for it"; break;
    case SSH_KNOWN_HOSTS_UNKNOWN: why = "is not in known_hosts"; break;
    case SSH_KNOWN_HOSTS_NOT_FOUND: why = "is not known: there is no file known_hosts"; break;
    case SSH_KNOWN_HOSTS_ERROR: return failed(g, "cannot look into known_hosts");
    }
    if (!key_hash(g, SSH_PUBLICKEY_HASH_SHA256, hex, &text))
        return false;
    err_set(g->e, ERR_VALUE, "'%s': the server's key (%.60s) %s", g->s->name, text ? text : hex, why);
    ssh.ssh_string_free_char(text);
    return err_hint(g->e, "ssh to it once, or host-key-check.mode=hash,host-key-check.type=sha256,host-key-check.hash=%s if that is right", hex);
}

static bool check_host(const struct login *g)
{
    switch (g->s->check) {
    case SSH_CHECK_NONE: return true;
    case SSH_CHECK_HASH: return check_hash(g);
    default: return check_known_hosts(g);
    }
}

/* ---- who we are ---- */

/* By keys alone: those of the agent, and those of files that need no password. */
static bool log_in(const struct login *g)
{
    int r = ssh.ssh_userauth_none(g->session, NULL);
    if (r == SSH_AUTH_SUCCESS)
        return true;
    if (r == SSH_AUTH_ERROR)
        return failed(g, "cannot log in");
    if (!(ssh.ssh_userauth_list(g->session, NULL) & SSH_AUTH_METHOD_PUBLICKEY))
        return err_set(g->e, ERR_VALUE, "'%s': cannot log in: the server does not take keys, which is the only way here", g->s->name);
    r = ssh.ssh_userauth_publickey_auto(g->session, NULL, NULL);
    if (r == SSH_AUTH_SUCCESS)
        return true;
    char *user = NULL;
    ssh.ssh_options_get(g->session, SSH_OPTIONS_USER, &user);
    if (r == SSH_AUTH_ERROR)
        failed(g, "cannot log in");
    else
        err_set(g->e, ERR_VALUE, "'%s': cannot log in%s%.60s: the server takes none of the agent's keys and none of those in files%s", g->s->name,
                user ? " as " : "", user ? user : "", r == SSH_AUTH_PARTIAL ? " alone" : "");
    ssh.ssh_string_free_char(user);
    return err_hint(g->e, "ssh-add gives a key to the agent; ssh-copy-id tells the server of it; user=NAME");
}

/* ---- the session ---- */

/* What files of options say is read first, so that it does not come before what was said to us. */
static bool set_options(struct login *g)
{
    const struct blk_ssh *s = g->s;
    int yes = 1;
    bool ok = !ssh.ssh_options_set(g->session, SSH_OPTIONS_HOST, s->place.host) && !ssh.ssh_options_parse_config(g->session, NULL) &&
              !ssh.ssh_options_set(g->session, SSH_OPTIONS_HOST, s->place.host) &&
              !ssh.ssh_options_set(g->session, SSH_OPTIONS_PORT_STR, s->place.port) &&
              (!s->user || !ssh.ssh_options_set(g->session, SSH_OPTIONS_USER, s->user)) &&
              !ssh.ssh_options_set(g->session, SSH_OPTIONS_NODELAY, &yes) && !ssh.ssh_options_set(g->session, SSH_OPTIONS_FD, &g->fd);
    return ok || failed(g, "libssh does not take the options");
}

static bool make_session(struct login *g)
{
    g->session = ssh.ssh_new();
    if (!g->session)
        return err_os(g->e, ENOMEM, "'%s': cannot begin a session", g->s->name);
    if (!set_options(g))
        return false;
    int r = ssh.ssh_connect(g->session);
    g->fd = -1;
    if (r)
        return failed(g, "cannot begin a session");
    if (!check_host(g) || !log_in(g))
        return false;
    g->channel = ssh.ssh_channel_new(g->session);
    if (!g->channel || ssh.ssh_channel_open_session(g->channel))
        return failed(g, "cannot open a channel");
    if (ssh.ssh_channel_request_sftp(g->channel))
        return failed(g, "the server does not offer its files by SFTP");
    ssh.ssh_set_blocking(g->session, 0);
    return true;
}

static int work(void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct login *g = arg;
    pthread_once(&once, open_library);
    if (trouble[0])
        return err_set(g->e, ERR_GENERIC, "cannot use libssh: %s", trouble);
    return make_session(g);
}

/* ---- on the loop ---- */

/* A server that does not answer: whoever waits for it finds the connection ended. */
struct patience { struct timer timer; int fd; bool over; };      /* fd: not the session's, which it may close */
static void give_up(void *arg)
{
    struct patience *p = arg;
    p->over = true;
    shutdown(p->fd, SHUT_RDWR);
}

bool co_ssh_connect(struct blk_ssh *s, struct err *e)
{
    struct sock_addr at;
    struct login g = { .s = s, .fd = co_sock_connect(&s->place, &at, e), .e = e };
    struct sftp *l = &s->sftp;
    if (g.fd < 0)
        return err_prefix(e, "'%s'", s->name);
    struct patience p = { .fd = fcntl(g.fd, F_DUPFD_CLOEXEC, 0) };
    if (p.fd < 0) {
        err_os(e, errno, "'%s': cannot begin a session", s->name);
        close(g.fd);
        return false;
    }
    timer_init(&p.timer, CLOCK_HOST, s->node.home, NULL, give_up, &p);
    timer_arm(&p.timer, clock_now(CLOCK_HOST) + CONNECT_NS);
    bool ok = co_offload(work, &g);
    l->name = s->name;
    l->session = g.session;
    l->channel = g.channel;
    sftp_init(l, s->node.home, p.fd);
    ok = ok && co_sftp_start(l, e);
    timer_fini(&p.timer);
    if (!ok && p.over)
        err_set(e, ERR_GENERIC, "'%s': the server does not answer for 30 seconds", s->name);
    if (!ok)
        sftp_end(l);
    if (g.fd >= 0)
        close(g.fd);
    return ok;
}

/* SPDX-License-Identifier: MIT */
/*
 * "http", "https": a file of a web server, read by range requests (RFC 9110, section 14). Transfers are libcurl's and run on worker
 * threads, a few at a time; small reads get what follows as well, for the next ones.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <curl/curl.h>
#include "base/log.h"
#include "block/asked.h"
#include "block/driver.h"
#include "crypto/secret.h"

enum { TRANSFERS = 4, PIECE = 1 << 20, MAX_REDIRECTS = 10, WHICH_MAX = 128 };

/* The file that there is, as the server says; or empty. */
struct which { char modified[WHICH_MAX], etag[WHICH_MAX]; };

struct blk_http {
    struct blk_node node;
    char *url, *cookie, *cookie_secret, *username, *password_secret, *proxy_username, *proxy_password_secret;
    uint64_t readahead;
    uint32_t timeout;
    bool sslverify, force_range;
    char *cookies, *password, *proxy_password;  /* of the secrets */
    CURL *idle[TRANSFERS];                      /* handles keep their connections */
    unsigned n_idle, busy;
    struct blk_asked asked;
    atomic_bool abandoned;
    struct co_queue room;
    bool told;
    struct which which;                         /* when it was opened */
    uint8_t *ahead;                             /* what was read last */
    uint64_t ahead_off, ahead_len;
};
static struct blk_http *of(struct blk_node *n) { return (struct blk_http *)n; }

/* ---- the library ---- */

/* What is used of libcurl. It is opened with the first node: it brings twenty libraries along, which every start would pay with milliseconds. */
static struct {
    typeof(&curl_easy_init) easy_init;
    typeof(&curl_easy_setopt) easy_setopt;
    typeof(&curl_easy_perform) easy_perform;
    typeof(&curl_easy_getinfo) easy_getinfo;
    typeof(&curl_easy_cleanup) easy_cleanup;
    typeof(&curl_easy_strerror) easy_strerror;
} curl;
static char curl_trouble[256];                  /* why it cannot be used, or empty */

static void open_curl(void)
{
    void *so = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!so)
        so = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(curl_trouble, sizeof curl_trouble, "%s", dlerror());
        return;
    }
    typeof(&curl_global_init) global_init = (typeof(global_init))dlsym(so, "curl_global_init");
    curl.easy_init = (typeof(curl.easy_init))dlsym(so, "curl_easy_init");
    curl.easy_setopt = (typeof(curl.easy_setopt))dlsym(so, "curl_easy_setopt");
    curl.easy_perform = (typeof(curl.easy_perform))dlsym(so, "curl_easy_perform");
    curl.easy_getinfo = (typeof(curl.easy_getinfo))dlsym(so, "curl_easy_getinfo");
    curl.easy_cleanup = (typeof(curl.easy_cleanup))dlsym(so, "curl_easy_cleanup");
    curl.easy_strerror = (typeof(curl.easy_strerror))dlsym(so, "curl_easy_strerror");
    if (!global_init || !curl.easy_init || !curl.easy_setopt || !curl.easy_perform || !curl.easy_getinfo || !curl.easy_cleanup || !curl.easy_strerror)
        snprintf(curl_trouble, sizeof curl_trouble, "it lacks functions");
    else if (global_init(CURL_GLOBAL_DEFAULT))
        snprintf(curl_trouble, sizeof curl_trouble, "it cannot begin");
}

/* On a worker: loading takes milliseconds. */
static int load_curl(void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_curl);
    return curl_trouble[0] ? -ENOSYS : 0;
}

/* ---- one transfer, on a worker ---- */

struct transfer {
    CURL *h;
    uint64_t off, len, got, total;              /* total: of the file, as the answer says */
    bool has_total, has_range;                  /* has_range: the answer is what was asked for */
    struct which which;
    uint8_t *buf;
    long status;
    CURLcode code;
    char error[CURL_ERROR_SIZE];
};

/* More than was asked for ends the transfer. */
static size_t take_data(char *p, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    if (n > t->len - t->got)
        return 0;
    memcpy(t->buf + t->got, p, n);
    t->got += n;
    return n;
}

/* "bytes A-B/TOTAL"; a star in place of A-B where the range was none. */
static void take_range(struct transfer *t, const char *v)
{
    const char *slash = strchr(v, '/');
    char asked[64], *end;
    int n = snprintf(asked, sizeof asked, "bytes %llu-%llu/", (unsigned long long)t->off, (unsigned long long)(t->off + t->len - 1));
    t->has_range = !strncasecmp(v, asked, (size_t)n);
    if (!slash || slash[1] < '0' || slash[1] > '9')
        return;
    errno = 0;
    t->total = strtoull(slash + 1, &end, 10);
    t->has_total = !errno;
}

/* The value of header @name, if @text is that; else NULL. */
static const char *value_of(const char *text, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(text, name, n) || text[n] != ':')
        return NULL;
    return text + n + 1 + strspn(text + n + 1, " \t");
}

static size_t take_header(char *p, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    char text[WHICH_MAX + 16];
    snprintf(text, sizeof text, "%.*s", (int)MIN(n, sizeof text - 1), p);
    text[strcspn(text, "\r\n")] = 0;
    if (str_starts(text, "HTTP/")) {        /* those before were of a redirect, or asked who we are */
        t->which = (struct which){ 0 };
        t->has_range = t->has_total = false;
    }
    const char *range = value_of(text, "content-range"), *etag = value_of(text, "etag"), *modified = value_of(text, "last-modified");
    if (range)
        take_range(t, range);
    if (etag)
        snprintf(t->which.etag, WHICH_MAX, "%s", etag);
    if (modified)
        snprintf(t->which.modified, WHICH_MAX, "%s", modified);
    return n;
}

/* Now and then, whether anything comes or not: not 0 ends it. */
static int given_up(void *abandoned, curl_off_t total, curl_off_t got, curl_off_t up_total, curl_off_t up) { return atomic_load((atomic_bool *)abandoned); }

static int perform(void *arg)
{
    struct transfer *t = arg;
    char range[64];
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)t->off, (unsigned long long)(t->off + t->len - 1));
    curl.easy_setopt(t->h, CURLOPT_RANGE, range);
    curl.easy_setopt(t->h, CURLOPT_WRITEDATA, t);
    curl.easy_setopt(t->h, CURLOPT_HEADERDATA, t);
    curl.easy_setopt(t->h, CURLOPT_ERRORBUFFER, t->error);
    t->code = curl.easy_perform(t->h);
    curl.easy_getinfo(t->h, CURLINFO_RESPONSE_CODE, &t->status);
    curl.easy_setopt(t->h, CURLOPT_ERRORBUFFER, NULL);
    return 0;
}

/* ---- handles ---- */

static CURL *new_handle(const struct blk_http *s)
{
    CURL *h = curl.easy_init();
    if (!h)
        return NULL;
    bool ok = !curl.easy_setopt(h, CURLOPT_URL, s->url) && !curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https") &&
              !curl.easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
    curl.easy_setopt(h, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(h, CURLOPT_TIMEOUT, (long)s->timeout);
    curl.easy_setopt(h, CURLOPT_SSL_VERIFYPEER, s->sslverify ? 1L : 0L);
    curl.easy_setopt(h, CURLOPT_SSL_VERIFYHOST, s->sslverify ? 2L : 0L);
    curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, take_data);
    curl.easy_setopt(h, CURLOPT_HEADERFUNCTION, take_header);
    curl.easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    curl.easy_setopt(h, CURLOPT_XFERINFOFUNCTION, given_up);
    curl.easy_setopt(h, CURLOPT_XFERINFODATA, &s->abandoned);
    curl.easy_setopt(h, CURLOPT_COOKIE, s->cookies ? s->cookies : s->cookie);
    curl.easy_setopt(h, CURLOPT_USERNAME, s->username);
    curl.easy_setopt(h, CURLOPT_PASSWORD, s->password);
    curl.easy_setopt(h, CURLOPT_PROXYUSERNAME, s->proxy_username);
    curl.easy_setopt(h, CURLOPT_PROXYPASSWORD, s->proxy_password);
    if (ok)
        return h;
    curl.easy_cleanup(h);
    return NULL;
}

/* One transfer of [off, off + len) into @buf; what came is in @t. */
static int co_transfer(struct blk_http *s, struct transfer *t, uint64_t off, uint64_t len, uint8_t *buf)
{
    *t = (struct transfer){ .off = off, .len = len, .buf = buf };
    while (s->busy >= TRANSFERS)
        co_queue_wait(&s->room);
    t->h = s->n_idle ? s->idle[--s->n_idle] : new_handle(s);
    if (!t->h)
        return -ENOMEM;
    s->busy++;
    blk_ask(&s->asked);
    co_offload(perform, t);
    blk_answered(&s->asked);
    s->busy--;
    s->idle[s->n_idle++] = t->h;
    co_queue_wake_one(&s->room);
    return t->code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : t->code ? -EIO : 0;
}

/* ---- reading ---- */

/* Another file may be there by now, and pieces of two are none. Mirrors of one file agree on when it was changed, but not on its ETag. */
static bool is_same_file(const struct blk_http *s, const struct transfer *t)
{
    const struct which *a = &s->which, *b = &t->which;
    if (t->has_total && t->total != atomic_load(&s->node.size))
        return false;
    if (*a->modified || *b->modified)
        return !*a->modified || !*b->modified || !strcmp(a->modified, b->modified);
    return !*a->etag || !*b->etag || !strcmp(a->etag, b->etag);
}

static int co_fetch(struct blk_http *s, uint64_t off, uint64_t len, uint8_t *buf)
{
    struct transfer t;
    int r = co_transfer(s, &t, off, len, buf);
    if (!r && t.status == 206 && !is_same_file(s, &t)) {
        if (!s->told)
            log_warn("'%s': the server has another file there now: what is read fails", s->url);
        s->told = true;
        return -ESTALE;
    }
    return r ? r : t.status == 206 && t.has_range && t.got == len ? 0 : -EIO;
}

static bool in_ahead(const struct blk_http *s, uint64_t off, uint64_t len)
{
    return s->ahead && off >= s->ahead_off && range_ok(off - s->ahead_off, len, s->ahead_len);
}

/* At most PIECE bytes. */
static int co_read_piece(struct blk_http *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n, uint64_t at)
{
    uint64_t size = atomic_load(&s->node.size), want = MIN(MAX(len, s->readahead), size - off);
    if (in_ahead(s, off, len)) {
        blk_iov_copy(s->ahead + (off - s->ahead_off), iov, n, at, len, true);
        return 0;
    }
    uint8_t *buf = malloc(want);
    int r = buf ? co_fetch(s, off, want, buf) : -ENOMEM;
    if (r) {
        free(buf);
        return r;
    }
    blk_iov_copy(buf, iov, n, at, len, true);
    free(s->ahead);
    s->ahead = buf;
    s->ahead_off = off;
    s->ahead_len = want;
    return 0;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = 0;
    for (uint64_t at = 0; at < len && !r; at += MIN(len - at, (uint64_t)PIECE))
        r = co_read_piece(of(n), off + at, MIN(len - at, (uint64_t)PIECE), iov, niov, at);
    return r;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags) { return -EROFS; }

/* ---- opening ---- */

static bool take_secret(const char *id, char **out, struct err *e)
{
    size_t n;
    *out = id ? (char *)secret_bytes(id, &n, e) : NULL;
    return !id || *out;
}

/* The first byte tells that ranges are known, and how long the file is. */
static bool co_find_size(struct blk_http *s, struct err *e)
{
    struct transfer t;
    uint8_t first[1];
    int r = co_transfer(s, &t, 0, 1, first);
    if (r == -ENOMEM)
        return err_os(e, ENOMEM, "cannot begin a transfer");
    if (t.status == 200)
        return err_set(e, ERR_GENERIC, "'%s': the server does not answer range requests", s->url);
    if (r)
        return err_set(e, ERR_GENERIC, "cannot read '%s': %.160s", s->url, t.error[0] ? t.error : curl.easy_strerror(t.code));
    if (t.status == 416 && t.has_total && !t.total)
        return true;
    if (t.status != 206)
        return err_set(e, ERR_GENERIC, "cannot read '%s': the server's answer is %ld", s->url, t.status);
    if (!t.has_total || t.total > INT64_MAX / 2)
        return err_set(e, ERR_GENERIC, "'%s': the server does not tell how long the file is", s->url);
    s->which = t.which;
    atomic_store(&s->node.size, align_down(t.total, 512));
    return t.total % 512 == 0 || err_set(e, ERR_VALUE, "'%s' has %llu bytes, which are no whole sectors", s->url, (unsigned long long)t.total);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_http *s = of(n);
    bool secure = str_eq(n->obj.cls->name, "blockdev-https");
    if (!n->read_only && !n->auto_read_only) {
        err_set(e, ERR_VALUE, "files of web servers can only be read");
        return err_hint(e, "read-only=on");
    }
    n->read_only = true;
    if (!str_starts(s->url, secure ? "https://" : "http://"))
        return err_set(e, ERR_VALUE, "url begins with %s", secure ? "https://" : "http://");
    if (s->cookie && s->cookie_secret)
        return err_set(e, ERR_VALUE, "cookie and cookie-secret exclude each other");
    if (!take_secret(s->cookie_secret, &s->cookies, e) || !take_secret(s->password_secret, &s->password, e) ||
        !take_secret(s->proxy_password_secret, &s->proxy_password, e))
        return false;
    if (co_offload(load_curl, NULL))
        return err_set(e, ERR_GENERIC, "cannot use libcurl: %s", curl_trouble);
    n->caps = (struct blk_caps){ .read_only = true, .logical_block = 512, .physical_block = 512, .mem_align = 1 };
    return co_find_size(s, e);
}

static bool abandon(struct blk_node *n, int64_t since)
{
    return blk_asked_in_vain(&of(n)->asked, since) && !atomic_exchange(&of(n)->abandoned, true);
}

static void co_close(struct blk_node *n)
{
    struct blk_http *s = of(n);
    while (s->n_idle)
        curl.easy_cleanup(s->idle[--s->n_idle]);
    free(s->ahead);
    s->ahead = NULL;
    char *secrets[] = { s->cookies, s->password, s->proxy_password };
    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
        secret_free(secrets[i], secrets[i] ? strlen(secrets[i]) : 0);
    s->cookies = s->password = s->proxy_password = NULL;
}

static const char *filename(const struct blk_node *n) { return ((const struct blk_http *)n)->url; }

static const struct prop props[] = {
    PROP_STR(struct blk_http, url, "url", PF_REQUIRED, "Address of the file"),
    PROP_SIZE(struct blk_http, readahead, "readahead", 256 * 1024, 512, 16 * MiB, "How much a read fetches at least, for the next ones"),
    PROP_U32(struct blk_http, timeout, "timeout", 5, 1, 10000, "Seconds that a transfer may take"),
    PROP_BOOL(struct blk_http, sslverify, "sslverify", true, "Refuse a server that cannot show who it is"),
    PROP_STR(struct blk_http, cookie, "cookie", 0, "Cookies that are sent along (NAME=VALUE; NAME=VALUE)"),
    PROP_STR(struct blk_http, cookie_secret, "cookie-secret", 0, "Secret with the cookies"),
    PROP_STR(struct blk_http, username, "username", 0, "User name for the server"),
    PROP_STR(struct blk_http, password_secret, "password-secret", 0, "Secret with the user's password"),
    PROP_STR(struct blk_http, proxy_username, "proxy-username", 0, "User name for the proxy (of the environment)"),
    PROP_STR(struct blk_http, proxy_password_secret, "proxy-password-secret", 0, "Secret with the password for the proxy"),
    { .name = "force-range", .doc = "Accepted for compatibility: the server is asked for a range, whatever it says of them", .type = PROP_T_BOOL,
      .flags = PF_HIDDEN, PROP_OFF(struct blk_http, force_range) },
    PROP_END,
};
#define HTTP_DRIVER(var, nm, ds) static const struct blk_driver var = {                                                             \
        .obj = { .name = "blockdev-" nm, .desc = ds, .base = &blk_node_class, .size = sizeof(struct blk_http), .props = props },      \
        .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .filename = filename }; OBJ_CLASS(&var.obj)
HTTP_DRIVER(http_driver, "http", "File of a web server; read-only");
HTTP_DRIVER(https_driver, "https", "File of a web server, encrypted on its way; read-only");

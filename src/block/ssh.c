/* SPDX-License-Identifier: MIT */
/*
 * "ssh": a file of another host, by SFTP. A session is made on a worker (ssh_connect.c), and served by the loop (sftp.c). A connection
 * that is lost is not made anew: what had been written, but not flushed, may be lost with the server, and nobody could be told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "block/ssh_int.h"
#include "block/uri.h"

static struct blk_ssh *of(struct blk_node *n) { return (struct blk_ssh *)n; }

/* ---- requests ---- */

static int co_flush(struct blk_node *n)
{
    struct blk_ssh *s = of(n);
    if (s->sftp.has_fsync)
        return co_sftp_fsync(&s->sftp);
    if (!s->flush_told)
        log_warn("'%s': the server does not know fsync@openssh.com: what is flushed may not be on its disk yet", s->name);
    s->flush_told = true;
    return 0;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_sftp_transfer(&of(n)->sftp, false, off, len, iov, niov);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_sftp_transfer(&of(n)->sftp, true, off, len, iov, niov);
    uint64_t end = align_up(off + len, 512);
    if (!r && flags & BLK_GROW && end > atomic_load(&n->size))
        atomic_store(&n->size, end);
    return !r && flags & BLK_FUA && !n->no_flush ? co_flush(n) : r;
}

static int co_resize(struct blk_node *n, uint64_t size)
{
    int r = co_sftp_set_size(&of(n)->sftp, size);
    if (!r)
        atomic_store(&n->size, align_up(size, 512));
    return r;
}

/* ---- opening ---- */

static bool open_error(struct blk_ssh *s, int r, struct err *e)
{
    err_set(e, ERR_GENERIC, "cannot open '%s': the server says: %s", s->name, s->sftp.said);
    if (r == -EACCES)
        err_hint(e, s->node.read_only ? "the user there may not read it" : "to read it only, say read-only=on");
    else if (r == -ENOENT)
        err_hint(e, "make one first: backplane-img create ADDRESS SIZE");
    return false;
}

/* A new file where there must be none, or whatever is there. */
static bool co_make(struct blk_ssh *s, struct err *e)
{
    struct sftp_attrs a;
    bool exists = !co_sftp_stat_path(&s->sftp, s->path, &a), must_not = s->node.make == BLK_MAKE_NEW;
    if (exists && must_not)
        return blk_exists(s->name, e);
    if (exists)
        return true;
    int r = co_sftp_open(&s->sftp, s->path, SFTP_READ | SFTP_WRITE | SFTP_CREAT | (must_not ? SFTP_EXCL : 0));
    s->node.made = !r;
    return !r || err_set(e, ERR_GENERIC, "cannot create '%s': the server says: %s", s->name, s->sftp.said);
}

static bool co_open_file(struct blk_ssh *s, struct err *e)
{
    struct blk_node *n = &s->node;
    struct sftp_attrs a;
    int r = co_sftp_open(&s->sftp, s->path, SFTP_READ | (n->read_only ? 0 : SFTP_WRITE));
    if (r == -EACCES && !n->read_only && n->auto_read_only) {
        n->read_only = true;
        r = co_sftp_open(&s->sftp, s->path, SFTP_READ);
    }
    if (r)
        return open_error(s, r, e);
    r = co_sftp_stat(&s->sftp, &a);
    if (r)
        return open_error(s, r, e);
    if (!a.has_size || (a.has_mode && !S_ISREG(a.mode)))
        return err_set(e, ERR_VALUE, "'%s' is no plain file", s->name);
    if (a.size > INT64_MAX - 4096)
        return err_set(e, ERR_VALUE, "'%s' is larger than is possible here", s->name);
    atomic_store(&n->size, align_up(a.size, 512));          /* the rest of a last sector reads as zeroes */
    n->caps = (struct blk_caps){ .read_only = n->read_only, .flush = !n->no_flush, .fua = true, .grows = !n->read_only, .logical_block = 512,
        .physical_block = 4096, .mem_align = 1 };
    return true;
}

static bool check_options(struct blk_ssh *s, struct err *e)
{
    if (!sock_place_from_json(&s->place, s->server, false, "22", "server", e))
        return false;
    if (s->place.kind != SOCK_INET || !s->place.host)
        return err_set(e, ERR_VALUE, "ssh goes to a host: server.host=NAME[,server.port=N]");
    if (!*s->path)
        return err_set(e, ERR_VALUE, "path is empty");
    if (s->check == SSH_CHECK_HASH && !s->hash)
        return err_set(e, ERR_VALUE, "host-key-check.mode=hash needs host-key-check.hash");
    return s->check == SSH_CHECK_HASH || !s->hash || err_set(e, ERR_VALUE, "host-key-check.hash has no effect without host-key-check.mode=hash");
}

static void make_names(struct blk_ssh *s)
{
    static const char *const types[] = { "md5", "sha1", "sha256" };
    struct str u = { 0 };
    str_add(&u, "ssh://");
    if (s->user) {
        uri_add_escaped(&u, s->user);
        str_add(&u, "@");
    }
    str_printf(&u, strchr(s->place.host, ':') ? "[%s]" : "%s", s->place.host);
    if (!str_eq(s->place.port, "22"))
        str_printf(&u, ":%s", s->place.port);
    str_add(&u, *s->path == '/' ? "" : "/~/");
    uri_add_escaped(&u, s->path);
    s->name = xstrdup(u.s);
    if (s->check == SSH_CHECK_NONE)
        str_add(&u, "?host_key_check=no");
    else if (s->check == SSH_CHECK_HASH)
        str_printf(&u, "?host_key_check=%s:%s", types[s->hash_type], s->hash);
    s->filename = str_take(&u);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_ssh *s = of(n);
    if (!check_options(s, e))
        return false;
    make_names(s);
    return co_ssh_connect(s, e) && (n->make == BLK_MAKE_NOT || co_make(s, e)) && co_open_file(s, e);
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct sftp *l = &of(n)->sftp;
    if (!l->connected || !blk_asked_in_vain(&l->asked, since))
        return false;
    sftp_lose(l, "the server does not answer");
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_ssh *s = of(n);
    sftp_end(&s->sftp);
    sock_place_release(&s->place);
    free(s->name);
    free(s->filename);
    s->name = s->filename = NULL;
}

static int co_unmake(struct blk_node *n) { return co_sftp_remove(&of(n)->sftp, of(n)->path); }

static bool co_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    return !writable || co_open_file(of(n), e);
}

static const char *filename(const struct blk_node *n) { return ((const struct blk_ssh *)n)->filename; }

static const char *const check_names[] = { "none", "hash", "known_hosts", NULL };
static const char *const hash_names[] = { "md5", "sha1", "sha256", NULL };
static const struct prop props[] = {
    PROP_JSON(struct blk_ssh, server, "server", PF_REQUIRED, "Where the server listens: server.host, and server.port if that is not 22"),
    PROP_STR(struct blk_ssh, path, "path", PF_REQUIRED, "The file there; without a '/' in front, as seen from the user's folder"),
    PROP_STR(struct blk_ssh, user, "user", 0, "Who logs in, by the keys of the agent and of files; else whom the files of ssh's options say, or the user here"),
    PROP_ENUM(struct blk_ssh, check, "host-key-check.mode", check_names, SSH_CHECK_KNOWN_HOSTS, "How the server's key is checked: not, by its hash, by the file known_hosts"),
    PROP_ENUM(struct blk_ssh, hash_type, "host-key-check.type", hash_names, SSH_HASH_SHA256, "Kind of the hash"),
    PROP_STR(struct blk_ssh, hash, "host-key-check.hash", 0, "Hash of the server's key in hexadecimal, or of sha256 as ssh-keygen -l shows it"),
    PROP_END,
};
static const struct blk_driver ssh_driver = {
    .obj = { .name = "blockdev-ssh", .desc = "File of another host, by SFTP", .base = &blk_node_class, .size = sizeof(struct blk_ssh), .props = props },
    .flags = BLK_MAKES, .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_flush = co_flush,
    .co_resize = co_resize, .co_unmake = co_unmake, .co_set_writable = co_set_writable, .filename = filename,
};
OBJ_CLASS(&ssh_driver.obj);

/* SPDX-License-Identifier: MIT */
/*
 * "iscsi": a disk of an iSCSI target. Commands are SBC-4's; the session below (iscsi_session.c) is made anew when it ends, and commands
 * that had no answer are sent again in their order: all of them may be executed twice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "block/backing.h"
#include "block/iscsi_int.h"
#include "crypto/secret.h"

enum { TRANSFER_MAX = 16 << 20, SAME_BLOCKS = 0x7fffff };

static struct blk_iscsi *of(struct blk_node *n) { return (struct blk_iscsi *)n; }

/* ---- transfers ---- */

/* What failed, where, and why, for the person. */
static int told(struct blk_iscsi *s, const struct iscsi_req *q, int r, const char *what, uint64_t lba)
{
    char words[160];
    if (r && !q->lost && r != -ENOTSUP)
        iscsi_warn(s, "%s at block %llu: %s", what, (unsigned long long)lba, iscsi_words(s, q, words));
    else if (r == -ETIMEDOUT)
        iscsi_warn(s, "%s at block %llu: no answer in %u seconds", what, (unsigned long long)lba, s->timeout);
    return r;
}

static void rw_cdb(const struct blk_iscsi *s, struct iscsi_req *q, uint64_t lba, uint32_t blocks, bool fua)
{
    q->cdb[0] = s->rw16 ? q->to_device ? 0x8a : 0x88 : q->to_device ? 0x2a : 0x28;
    q->cdb[1] = fua ? 8 : 0;
    q->cdb_len = s->rw16 ? 16 : 10;
    if (s->rw16) {
        st_be64(q->cdb + 2, lba);
        st_be32(q->cdb + 10, blocks);
    } else {
        st_be32(q->cdb + 2, (uint32_t)lba);
        st_be16(q->cdb + 7, (uint16_t)blocks);
    }
}

/* Whole blocks, as many as one command takes, and no more pieces of memory than the library takes. */
static int co_rw(struct blk_iscsi *s, bool write, uint64_t off, uint32_t len, const struct iovec *iov, unsigned niov, bool fua)
{
    struct iscsi_req q = { .to_device = write, .iov = iov, .niov = niov, .len = len };
    void *flat = NULL;
    struct iovec v;
    if (niov > ISCSI_IOV_MAX) {
        if (!(flat = calloc(1, len)))      /* what a target says it sent but did not is nobody's memory */
            return -ENOMEM;
        v = (struct iovec){ flat, len };
        q.iov = &v;
        q.niov = 1;
        if (write)
            blk_iov_copy(flat, iov, niov, 0, len, false);
    }
    rw_cdb(s, &q, off / s->block, len / s->block, fua);
    int r = told(s, &q, co_iscsi_run(s, &q), write ? "cannot write" : "cannot read", off / s->block);
    if (!r && q.done != len) {
        iscsi_warn(s, "the target transferred %u bytes in place of %u", q.done, len);
        r = -EIO;
    }
    if (flat && !write && !r)
        blk_iov_copy(flat, iov, niov, 0, len, true);
    free(flat);
    return r;
}

static int co_split(struct blk_iscsi *s, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, bool fua)
{
    struct iovec *part = len > s->max_transfer ? calloc(niov, sizeof *part) : NULL;
    int r = 0;
    if (len <= s->max_transfer)
        return co_rw(s, write, off, (uint32_t)len, iov, niov, fua);
    if (!part)
        return -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint32_t k = (uint32_t)MIN(len - at, (uint64_t)s->max_transfer);
        r = co_rw(s, write, off + at, k, part, blk_iov_slice(iov, niov, at, k, part), fua);
        at += k;
    }
    free(part);
    return r;
}

static int co_whole(struct blk_node *n, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_split(of(n), write, off, len, iov, niov, flags & BLK_FUA && of(n)->dpofua);
}

/* ---- requests ---- */

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_blk_ragged(n, &of(n)->ragged, false, off, len, iov, niov, 0);
}

static int co_flush(struct blk_node *n)
{
    struct blk_iscsi *s = of(n);
    struct iscsi_req q = { .cdb = { 0x35 }, .cdb_len = 10 };
    int r = told(s, &q, co_iscsi_run(s, &q), "cannot flush the cache", 0);
    return r == -ENOTSUP ? 0 : r;           /* it has none */
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_iscsi *s = of(n);
    bool fua = flags & BLK_FUA && !n->no_flush;
    int r = co_blk_ragged(n, &s->ragged, true, off, len, iov, niov, fua ? BLK_FUA : 0);
    return !r && fua && !s->dpofua ? co_flush(n) : r;
}

/* WRITE SAME(16) of a block of zeroes. */
static int co_same(struct blk_iscsi *s, uint64_t lba, uint32_t blocks, bool unmap)
{
    uint8_t *zeroes = calloc(1, s->block);
    struct iovec v = { zeroes, s->block };
    struct iscsi_req q = { .cdb = { 0x93, unmap ? 8 : 0 }, .cdb_len = 16, .to_device = true, .iov = &v, .niov = 1, .len = s->block };
    if (!zeroes)
        return -ENOMEM;
    st_be64(q.cdb + 2, lba);
    st_be32(q.cdb + 10, blocks);
    int r = co_iscsi_run(s, &q);
    if (r != -EINVAL)
        told(s, &q, r, "cannot write zeroes", lba);
    free(zeroes);
    return r;
}

/* A unit that does not take it once never does. */
static int co_zero_blocks(struct blk_iscsi *s, uint64_t lba, uint64_t blocks, bool unmap)
{
    int r = 0;
    while (blocks && !r) {
        uint32_t k = (uint32_t)MIN(blocks, s->max_same);
        if (!k)
            return -ENOTSUP;
        bool u = unmap && s->same_unmaps && s->reads_zeroes;
        r = co_same(s, lba, k, u);
        if (r == -EINVAL && u) {
            s->same_unmaps = false;
            r = 0;
            continue;
        }
        if (r == -EINVAL || r == -ENOTSUP) {
            s->max_same = 0;
            s->node.caps.write_zeroes = false;
            return -ENOTSUP;
        }
        lba += k;
        blocks -= k;
    }
    return r;
}

static int co_zero_whole(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_iscsi *s = of(n);
    return co_zero_blocks(s, off / s->block, len / s->block, flags & BLK_ZERO_UNMAP);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_iscsi *s = of(n);
    bool fua = flags & BLK_FUA && !n->no_flush;
    if (!s->max_same)
        return -ENOTSUP;
    int r = co_blk_ragged_zero(n, &s->ragged, off, len, flags, co_zero_whole);
    return !r && fua ? co_flush(n) : r;
}

/* UNMAP of one range (SBC-4, 5.35). */
static int co_unmap(struct blk_iscsi *s, uint64_t lba, uint32_t blocks)
{
    uint8_t list[24] = { 0, 22, 0, 16 };
    struct iovec v = { list, sizeof list };
    struct iscsi_req q = { .cdb = { 0x42, [8] = sizeof list }, .cdb_len = 10, .to_device = true, .iov = &v, .niov = 1, .len = sizeof list };
    st_be64(list + 8, lba);
    st_be32(list + 16, blocks);
    return told(s, &q, co_iscsi_run(s, &q), "cannot discard", lba);
}

/* Blocks of which a part is meant stay as they are. */
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_iscsi *s = of(n);
    uint64_t lba = align_up(off, s->block) / s->block, end = (off + len) / s->block;
    int r = 0;
    while (lba < end && !r) {
        uint64_t most = s->unmap ? s->max_unmap : s->max_same;
        uint32_t k = (uint32_t)MIN(MIN(end - lba, most), (uint64_t)UINT32_MAX);
        if (!k)
            return 0;
        r = s->unmap ? co_unmap(s, lba, k) : co_same(s, lba, k, true);
        lba += k;
    }
    return r == -ENOTSUP || r == -EINVAL ? 0 : r;       /* a hint that this unit does not take */
}

/* GET LBA STATUS (SBC-4, 5.6): the first of its descriptors. */
static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_iscsi *s = of(n);
    uint8_t b[24] = { 0 };
    struct iovec v = { b, sizeof b };
    uint64_t lba = off / s->block;
    struct iscsi_req q = { .cdb = { 0x9e, 0x12, [13] = sizeof b }, .cdb_len = 16, .iov = &v, .niov = 1, .len = sizeof b };
    if (!s->lba_status)
        return 0;
    st_be64(q.cdb + 2, lba);
    int r = co_iscsi_run(s, &q);
    if (r == -ENOTSUP || r == -EINVAL)
        s->lba_status = false;
    if (r)
        return s->lba_status ? told(s, &q, r, "cannot ask for the state", lba) : 0;
    uint64_t blocks = ld_be32(b + 16), end = blocks * s->block;
    if (q.done < sizeof b || ld_be64(b + 8) != lba || !blocks)
        return 0;                           /* says nothing of what was asked */
    out->len = MIN(len, end - (off - lba * s->block));
    out->data = !(b[20] & 15);
    out->zero = !out->data && s->reads_zeroes;
    return 0;
}

/* The target decides of the size: only what that is already can be asked for. */
static int co_resize(struct blk_node *n, uint64_t size)
{
    int r = co_iscsi_capacity(of(n));
    return r ? r : size == atomic_load(&n->size) ? 0 : -ENOTSUP;
}

/* ---- life ---- */

static bool check_name(const char *what, const char *v, struct err *e)
{
    return !v || (*v && strlen(v) < MAX_STRING_SIZE) || err_set(e, ERR_VALUE, "%s has %zu bytes, but must have 1 to %d", what, strlen(v), MAX_STRING_SIZE - 1);
}

static bool check_options(struct blk_iscsi *s, struct err *e)
{
    if (s->transport) {
        err_set(e, ERR_NOT_BUILT, "transport=iser (iSCSI over RDMA) is not in this build");
        return err_hint(e, "transport=tcp");
    }
    if (!check_name("portal", s->portal, e) || !check_name("target", s->target, e) || !check_name("user", s->user, e) ||
        !check_name("initiator-name", s->initiator_name, e))
        return false;
    if (s->password && s->password_secret)
        return err_set(e, ERR_VALUE, "a password in the address and password-secret exclude each other");
    if ((s->password || s->password_secret) && !s->user)
        return err_set(e, ERR_VALUE, "a password has no effect without user");
    return true;
}

static bool take_secret(struct blk_iscsi *s, struct err *e)
{
    size_t n;
    if (s->password_secret)
        s->secret = (char *)secret_bytes(s->password_secret, &n, e);
    else
        s->secret = s->password ? xstrdup(s->password) : NULL;
    return s->secret ? check_name("the password", s->secret, e) : !s->password_secret;
}

static bool check_protection(struct blk_iscsi *s, struct err *e)
{
    struct blk_node *n = &s->node;
    if (s->write_protected && !n->read_only && !n->auto_read_only) {
        err_set(e, ERR_VALUE, "%s: it is write-protected", s->what);
        return err_hint(e, "read-only=on");
    }
    n->read_only |= s->write_protected;
    return true;
}

/* A command of a guest could write. */
static uint32_t takes_commands(const struct blk_iscsi *s) { return s->node.read_only && !s->write_protected ? 0 : s->max_transfer; }

static void set_caps(struct blk_iscsi *s)
{
    struct blk_node *n = &s->node;
    struct blk_caps *c = &n->caps;
    bool unmaps = s->provisioned && (s->unmap || (s->same_unmaps && s->max_same));
    c->read_only = n->read_only;
    c->discard = n->discard == BLK_DISCARD_UNMAP && unmaps;
    c->write_zeroes = s->max_same;
    c->flush = !n->no_flush;
    c->fua = true;
    c->logical_block = c->physical_block = s->block;
    c->physical_block = MAX(s->block, 4096u);
    c->mem_align = 1;
    c->scsi = takes_commands(s);
    c->discard_granularity = c->discard ? c->discard_granularity : 0;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_iscsi *s = of(n);
    if (!check_options(s, e) || !take_secret(s, e) || !(s->lib = co_iscsi_lib(e)))
        return false;
    if (!s->initiator_name)
        s->initiator_name = xstrdup("iqn.2008-11.org.linux-kvm");
    if (getrandom(&s->isid, sizeof s->isid, 0) != sizeof s->isid)
        return err_os(e, errno, "no random number");
    s->isid &= 0xffffff;
    s->name = blk_iscsi_url(s->portal, s->target, s->lun);
    s->what = xasprintf("LUN %u of iSCSI target '%s' at %s", s->lun, s->target, s->portal);
    timer_init(&s->tick, CLOCK_HOST, n->home, NULL, iscsi_tick, s);
    blk_ragged_init(&s->ragged);
    s->max_transfer = TRANSFER_MAX;
    s->max_same = SAME_BLOCKS;
    if (!co_iscsi_connect(s, e) || !co_iscsi_probe(s, e) || !check_protection(s, e))
        return false;
    s->max_same = s->rw16 && !n->read_only ? s->max_same : 0;
    set_caps(s);
    s->ragged.block = s->block;
    s->ragged.co_whole = co_whole;
    return true;
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct blk_iscsi *s = of(n);
    if (s->closing || !blk_asked_in_vain(&s->asked, since))
        return false;
    iscsi_abandon(s);
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_iscsi *s = of(n);
    if (s->what) {
        co_iscsi_disconnect(s);
        timer_fini(&s->tick);
        blk_ragged_fini(&s->ragged);
    }
    secret_free(s->secret, s->secret ? strlen(s->secret) : 0);
    free(s->name);
    free(s->what);
    s->secret = s->name = s->what = NULL;
}

static bool co_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    struct blk_iscsi *s = of(n);
    if (writable && s->write_protected)
        return err_set(e, ERR_VALUE, "%s: it is write-protected", s->what);
    n->caps.read_only = n->read_only;
    n->caps.scsi = takes_commands(s);
    return true;
}

static bool init(struct obj *o, struct err *e)
{
    struct blk_iscsi *s = (struct blk_iscsi *)o;
    list_init(&s->sent);
    list_init(&s->draining);
    return true;
}

static const char *filename(const struct blk_node *n)
{
    const char *name = ((const struct blk_iscsi *)n)->name;
    return name ? name : "";
}

static const char *const transports[] = { "tcp", "iser", NULL };
/* In the order of enum iscsi_header_digest. */
static const char *const digests[] = { "none", "none-crc32c", "crc32c-none", "crc32c", NULL };
static const struct prop props[] = {
    PROP_ENUM(struct blk_iscsi, transport, "transport", transports, 0, "tcp, or iser, which this build lacks"),
    PROP_STR(struct blk_iscsi, portal, "portal", PF_REQUIRED, "Where the target listens: HOST or HOST:PORT (3260)"),
    PROP_STR(struct blk_iscsi, target, "target", PF_REQUIRED, "Name of the target"),
    PROP_U32(struct blk_iscsi, lun, "lun", 0, 0, 16383, "Number of the unit"),
    PROP_STR(struct blk_iscsi, user, "user", 0, "User name for the target (CHAP)"),
    { .name = "password", .doc = "The user's password, as addresses say it", .type = PROP_T_STR, .flags = PF_HIDDEN, PROP_OFF(struct blk_iscsi, password) },
    PROP_STR(struct blk_iscsi, password_secret, "password-secret", 0, "Secret with the user's password"),
    PROP_STR(struct blk_iscsi, initiator_name, "initiator-name", 0, "Our own name; else iqn.2008-11.org.linux-kvm"),
    PROP_ENUM(struct blk_iscsi, header_digest, "header-digest", digests, ISCSI_HEADER_DIGEST_NONE_CRC32C, "Checksums of headers: what is offered, the first preferred"),
    PROP_U32(struct blk_iscsi, timeout, "timeout", 0, 0, 86400, "Seconds that a command may take before the session is given up; 0: for ever, as long as the target answers keepalives"),
    PROP_U32(struct blk_iscsi, reconnect_delay, "reconnect-delay", 120, 0, 86400, "Seconds that requests wait for a lost target; 0: they fail, the next one tries again"),
    PROP_END,
};
static const struct blk_driver iscsi_driver = {
    .obj = { .name = "blockdev-iscsi", .desc = "Disk of an iSCSI target", .base = &blk_node_class, .size = sizeof(struct blk_iscsi), .props = props,
             .init = init },
    .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero, .co_discard = co_discard,
    .co_flush = co_flush, .co_resize = co_resize, .co_map = co_map, .co_set_writable = co_set_writable, .co_scsi = co_iscsi_pass, .filename = filename,
};
OBJ_CLASS(&iscsi_driver.obj);

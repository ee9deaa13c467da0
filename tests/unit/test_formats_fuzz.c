/* SPDX-License-Identifier: MIT */
/*
 * Images of every format that is only read, altered at random: whatever they say, opening, reading, mapping and checking end, within
 * bounded memory and without a fault. The seeds are small images made here. BP_FUZZ=N tries more, BP_SEED=S begins elsewhere.
 */
#include "blk_test.h"
#include <sys/resource.h>
#include <time.h>

enum { ROOM = 4 << 20 };

struct seed { const char *fmt; uint64_t len, tables[4]; uint8_t *p; };

/* ---- the seeds ---- */

static void seed_vdi(struct seed *s)
{
    uint8_t *p = s->p;
    st_le32(p + 0x40, 0xbeda107f);
    st_le32(p + 0x44, 0x10001);
    st_le32(p + 0x4c, 1);
    st_le32(p + 0x154, 512);
    st_le32(p + 0x158, 1024);
    st_le32(p + 0x168, 512);
    st_le64(p + 0x170, 32 * 4096);
    st_le32(p + 0x178, 4096);
    st_le32(p + 0x180, 32);
    for (unsigned i = 0; i < 32; i++)
        st_le32(p + 512 + i * 4, i % 3 == 0 ? i / 3 : UINT32_MAX - i % 3 + 1);
    s->len = 1024 + 11 * 4096;
    s->tables[0] = 0x140;
    s->tables[1] = 512;
}

static void seed_parallels(struct seed *s)
{
    uint8_t *p = s->p;
    memcpy(p, "WithoutFreeSpace", 16);
    st_le32(p + 16, 2);
    st_le32(p + 28, 8);
    st_le32(p + 32, 32);
    st_le32(p + 36, 256);
    for (unsigned i = 0; i < 32; i++)
        st_le32(p + 64 + i * 4, i % 2 ? 8 + i * 4 : 0);
    s->len = 80 * 1024;
    s->tables[0] = 16;
    s->tables[1] = 64;
}

static void sum_be(uint8_t *p, unsigned len, unsigned at)
{
    uint32_t sum = 0;
    st_be32(p + at, 0);
    for (unsigned i = 0; i < len; i++)
        sum += p[i];
    st_be32(p + at, ~sum);
}

static void seed_vpc(struct seed *s)
{
    uint8_t *p = s->p, *d = p + 512;
    memcpy(p, "conectix", 8);
    st_be64(p + 16, 512);
    memcpy(p + 28, "win ", 4);
    st_be64(p + 48, 32 * 4096);
    st_be32(p + 60, 3);
    memcpy(d, "cxsparse", 8);
    st_be64(d + 16, 1536);
    st_be32(d + 28, 32);
    st_be32(d + 32, 4096);
    for (unsigned i = 0; i < 32; i++)
        st_be32(p + 1536 + i * 4, i % 2 ? 4 + i / 2 * 9 : UINT32_MAX);
    s->len = 2048 + 16 * 9 * 512;
    s->tables[0] = 16;
    s->tables[1] = 512;
    s->tables[2] = 1536;
}

static void seed_qcow(struct seed *s)
{
    uint8_t *p = s->p;
    st_be32(p, 0x514649fb);
    st_be32(p + 4, 1);
    st_be64(p + 24, 64 * 4096);
    p[32] = 12;
    p[33] = 9;
    st_be64(p + 40, 48);
    st_be64(p + 48, 4096);
    for (unsigned i = 0; i < 64; i++)
        st_be64(p + 4096 + i * 8, i % 3 == 0 ? 8192 + i * 4096 : i % 3 == 1 ? BIT64(63) | (uint64_t)100 << 51 | (8192 + i) : 0);
    s->len = 300 * 1024;
    s->tables[0] = 8;
    s->tables[1] = 48;
    s->tables[2] = 4096;
}

static void seed_vmdk(struct seed *s, bool packed)
{
    uint8_t *p = s->p;
    memcpy(p, "KDMV", 4);
    st_le32(p + 4, packed ? 3 : 1);
    st_le32(p + 8, packed ? 0x30001 : 5);
    st_le64(p + 12, 512);
    st_le64(p + 20, 8);
    st_le64(p + 28, 1);
    st_le64(p + 36, 1);
    st_le32(p + 44, 16);
    st_le64(p + 56, 2);
    p[77] = packed;
    strcpy((char *)p + 512, "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType=\"x\"\nRW 512 SPARSE \"a.vmdk\"\n");
    for (unsigned i = 0; i < 4; i++)
        st_le32(p + 1024 + i * 4, 4 + i);
    for (unsigned i = 0; i < 64; i++)
        st_le32(p + 2048 + i / 16 * 512 + i % 16 * 4, i % 3 ? 8 + i * 8 : i % 2);
    s->len = 300 * 1024;
    s->tables[0] = 0;
    s->tables[1] = 512;
    s->tables[2] = 1024;
    s->tables[3] = 2048;
}
static void seed_sparse(struct seed *s) { seed_vmdk(s, false); }
static void seed_stream(struct seed *s) { seed_vmdk(s, true); }

static void seed_flat(struct seed *s)
{
    strcpy((char *)s->p, "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"fuzz.img\" 0\nRW 16 ZERO\nRW 8 FLAT \"fuzz.img\" 8\n");
    s->len = 16 * 1024;
    s->tables[1] = 60;
}

static void sum_crc(uint8_t *p, unsigned len)
{
    uint32_t crc = UINT32_MAX;
    st_le32(p + 4, 0);
    for (unsigned i = 0; i < len; i++) {
        crc ^= p[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    st_le32(p + 4, ~crc);
}

static void seed_vhdx(struct seed *s)
{
    static const char items[3][17] = { "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8",
                                       "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f" };
    uint8_t *p = s->p, *m = p + 2 * MiB;
    memcpy(p, "vhdxfile", 8);
    memcpy(p + 65536, "head", 4);
    st_le16(p + 65536 + 66, 1);
    memcpy(p + 196608, "regi", 4);
    st_le32(p + 196608 + 8, 2);
    memcpy(p + 196608 + 16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", 16);
    st_le64(p + 196608 + 32, MiB);
    st_le32(p + 196608 + 40, MiB);
    memcpy(p + 196608 + 48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16);
    st_le64(p + 196608 + 64, 2 * MiB);
    st_le32(p + 196608 + 72, MiB);
    memcpy(m, "metadata", 8);
    st_le16(m + 10, 3);
    for (unsigned i = 0; i < 3; i++) {
        memcpy(m + 32 + i * 32, items[i], 16);
        st_le32(m + 32 + i * 32 + 16, 65536 + i * 8);
        st_le32(m + 32 + i * 32 + 20, 8);
        st_le32(m + 32 + i * 32 + 24, 4);
    }
    st_le32(m + 65536, MiB);
    st_le64(m + 65536 + 8, 64 * MiB);
    st_le32(m + 65536 + 16, 512);
    for (unsigned i = 0; i < 64; i++)
        st_le64(p + MiB + i * 8, i % 4 ? i % 4 : 6 | 3 * MiB);
    s->len = 4 * MiB;
    s->tables[0] = 196608;
    s->tables[1] = MiB;
    s->tables[2] = 2 * MiB;
    s->tables[3] = 2 * MiB + 65536;
}

static void seed_luks(struct seed *s)
{
    uint8_t *p = s->p;
    memcpy(p, "LUKS\xba\xbe\0\1aes", 11);
    strcpy((char *)p + 40, "xts-plain64");
    strcpy((char *)p + 72, "sha256");
    st_be32(p + 104, 4096);
    st_be32(p + 108, 64);
    st_be32(p + 164, 1000);
    for (unsigned i = 0; i < 8; i++) {
        st_be32(p + 208 + i * 48, i ? 0xdead : 0xac71f3);
        st_be32(p + 208 + i * 48 + 4, 1000);
        st_be32(p + 208 + i * 48 + 40, 8 + i * 504);
        st_be32(p + 208 + i * 48 + 44, 4000);
    }
    s->len = 3 * MiB;
    s->tables[0] = 100;
    s->tables[1] = 208;
}

/* What is altered must be seen: checksums are made right again, mostly. */
static void settle(const struct seed *s, uint8_t *p)
{
    if (!strcmp(s->fmt, "vpc")) {
        sum_be(p, 512, 64);
        sum_be(p + 512, 1024, 36);
    } else if (!strcmp(s->fmt, "vhdx")) {
        sum_crc(p + 65536, 4096);
        sum_crc(p + 196608, 65536);
    }
}

#ifdef CONFIG_NETTLE
static struct seed seeds[9];
#else
static struct seed seeds[8];
#endif
static void make_seeds(void)
{
    static void (*const make[])(struct seed *) = { seed_vdi, seed_parallels, seed_vpc, seed_qcow, seed_sparse, seed_stream, seed_flat, seed_vhdx, seed_luks };
    static const char *const names[] = { "vdi", "parallels", "vpc", "qcow", "vmdk", "vmdk", "vmdk", "vhdx", "luks" };
    for (unsigned i = 0; i < ARRAY_SIZE(seeds); i++) {
        seeds[i] = (struct seed){ .fmt = names[i], .p = calloc(1, ROOM) };
        make[i](&seeds[i]);
        settle(&seeds[i], seeds[i].p);
    }
}

/* ---- the trial ---- */

static char *img;

static void alter(const struct seed *s, uint8_t *p)
{
    static const uint64_t values[] = { 0, 1, UINT64_MAX, BIT64(63), BIT64(62), INT64_MAX, UINT32_MAX, INT32_MAX, BIT64(40), BIT64(31) };
    for (unsigned n = rnd() % 4 + 1; n--;) {
        uint64_t at = s->tables[rnd() % 4] + rnd() % 96, v = values[rnd() % ARRAY_SIZE(values)];
        if (at + 8 > s->len)
            continue;
        switch (rnd() % 4) {
        case 0: p[at] = (uint8_t)rnd(); break;
        case 1: p[at] ^= (uint8_t)(1 << rnd() % 8); break;
        case 2: st_le32(p + (at & ~UINT64_C(3)), (uint32_t)v); break;
        default: rnd() % 2 ? st_be64(p + (at & ~UINT64_C(7)), v) : st_le64(p + (at & ~UINT64_C(7)), v);
        }
    }
}

struct look { struct blk_node *n; int r; };
static void look_co(void *arg)
{
    struct look *l = arg;
    struct blk_check res = { 0 };
    uint64_t size = atomic_load(&l->n->size);
    struct blk_extent x;
    for (uint64_t at = 0, i = 0; at < size && i < 1000; at += x.len, i++) {
        l->r = co_node_map(l->n, at, size - at, &x);
        if (l->r)
            break;
        assert_true(x.len && x.len <= size - at);
    }
    if (size <= 64 * MiB)
        l->r = BLK_DRIVER(l->n)->co_check ? BLK_DRIVER(l->n)->co_check(l->n, &res, 0) : 0;
}

/* Whatever the tables say, a write ends, and the file does not become longer than what was written and the blocks around it. */
static void try_writing(const struct seed *s, char *buf)
{
    struct stat st;
    struct blk_node *n = node_of(json_of("{'driver':'%s','node-name':'q','file':{'driver':'file','filename':'%s'}}", s->fmt, img));
    if (!n)
        return;
    uint64_t size = atomic_load(&n->size), cluster = BLK_DRIVER(n)->cluster_size ? BLK_DRIVER(n)->cluster_size(n) : 2 * MiB;
    for (unsigned i = 0; i < 4 && size >= 512 && cluster <= 2 * MiB; i++) {
        uint64_t off = (i < 2 ? rnd() % 256 : ((uint64_t)rnd() << 16 ^ rnd()) % (size / 512)) * 512 % size, len = MIN(size - off, (uint64_t)65536);
        nio(n, i & 1 ? 'z' : 'w', off, len, buf, 0);
    }
    del(n);
    assert_int_equal(stat(img, &st), 0);
    assert_true(st.st_blocks * 512 <= (off_t)(64 * MiB));
}

static bool try_image(const struct seed *s, char *buf)
{
    struct blk_node *n = node_of(json_of("{'driver':'%s','node-name':'q','read-only':true%s,'file':{'driver':'file','filename':'%s'}}", s->fmt,
                                         strcmp(s->fmt, "luks") ? "" : ",'header-only':true", img));
    if (!n)
        return false;
    struct look l = { .n = n };
    uint64_t size = atomic_load(&n->size);
    for (unsigned i = 0; i < 8 && size >= 512; i++) {
        uint64_t off = (i < 4 ? rnd() % 256 : ((uint64_t)rnd() << 16 ^ rnd()) % (size / 512)) * 512 % size;
        nio(n, 'r', off, MIN(size - off, (uint64_t)65536), buf, 0);
    }
    co_run_main(look_co, &l);
    del(n);
    if (!strcmp(s->fmt, "vdi") || !strcmp(s->fmt, "vpc") || !strcmp(s->fmt, "vmdk"))
        try_writing(s, buf);
    return true;
}

/* Of this process: others may keep it from running. */
static clock_t seconds_since(clock_t start) { return (clock() - start) / CLOCKS_PER_SEC; }

static void nothing_in_an_image_hurts(void **state)
{
    unsigned rounds = getenv("BP_FUZZ") ? (unsigned)atoi(getenv("BP_FUZZ")) : 1500, from = getenv("BP_SEED") ? (unsigned)atoi(getenv("BP_SEED")) : 0;
    char *buf = malloc(65536);
    uint8_t *p = malloc(ROOM);
    unsigned opened[ARRAY_SIZE(seeds)] = { 0 };
    struct rusage ru;
    make_seeds();
    for (unsigned i = from; i < from + rounds; i++) {
        const struct seed *s = &seeds[i % ARRAY_SIZE(seeds)];
        rnd_state = i * 7919 + 1;
        memcpy(p, s->p, s->len);
        if (i >= ARRAY_SIZE(seeds))
            alter(s, p);
        if (rnd() % 16)
            settle(s, p);
        uint64_t len = rnd() % 32 ? s->len : rnd() % s->len;
        int fd = open(img, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, p, len), (ssize_t)len);
        close(fd);
        clock_t start = clock();
        bool ok = try_image(s, buf);
        opened[i % ARRAY_SIZE(seeds)] += ok;
        if (!from && i < ARRAY_SIZE(seeds) && !ok)
            fail_msg("the seed of %s does not open: %s", s->fmt, err.msg);
        assert_true(seconds_since(start) <= 20);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(seeds) && rounds >= 400; i++)
        assert_true(opened[i] > 4);         /* it is not all refused at the door */
    getrusage(RUSAGE_SELF, &ru);
    assert_true(ru.ru_maxrss < 700 * 1024);
    free(buf);
    free(p);
    for (unsigned i = 0; i < ARRAY_SIZE(seeds); i++)
        free(seeds[i].p);
}

int main(void)
{
    const struct CMUnitTest fuzz[] = { cmocka_unit_test(nothing_in_an_image_hurts) };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("fuzz.img");
    return run_block_tests(cmocka_run_group_tests(fuzz, loop_modes_setup, NULL));
}

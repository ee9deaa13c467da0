/* SPDX-License-Identifier: MIT */
/*
 * Programs in small for measuring a CPU: `work NAME N` runs one of them N times over and prints "NAME nanoseconds checksum".
 * Built for the guest (static) and for the host (to compare with).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t work_fn(unsigned n);
#define NOINLINE __attribute__((noinline))
static uint8_t buffer[1 << 20];

/* ---- integers ---- */

static uint64_t do_sieve(unsigned n)
{
    uint64_t primes = 0;
    for (unsigned r = 0; r < n; r++) {
        memset(buffer, 1, 1 << 18);
        for (unsigned i = 2; i < 512; i++)
            if (buffer[i])
                for (unsigned k = i * i; k < 1 << 18; k += i)
                    buffer[k] = 0;
        for (unsigned i = 2; i < 1 << 18; i++)
            primes += buffer[i];
    }
    return primes;
}

static uint32_t ror(uint32_t v, unsigned n) { return v >> n | v << (32 - n); }

static uint64_t do_sha256(unsigned n)
{
    uint32_t k[64], h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, w[64];
    for (unsigned i = 0; i < 64; i++)
        k[i] = i * 0x9e3779b9u;
    for (unsigned r = 0; r < n * 100; r++) {
        for (unsigned i = 0; i < 16; i++)
            memcpy(&w[i], buffer + (r * 64 + i * 4) % sizeof buffer, 4);
        for (unsigned i = 16; i < 64; i++)
            w[i] = w[i - 16] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
                   (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], x = h[7];
        for (unsigned i = 0; i < 64; i++) {
            uint32_t t1 = x + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
            uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            x = g; g = f; f = e; e = d + t1; d = c; c = b; b = a; a = t1 + t2;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += x;
    }
    return h[0];
}

static uint64_t do_crc32(unsigned n)
{
    uint32_t table[256], c = 0;
    for (unsigned i = 0; i < 256; i++) {
        uint32_t v = i;
        for (unsigned k = 0; k < 8; k++)
            v = v & 1 ? v >> 1 ^ 0xedb88320 : v >> 1;
        table[i] = v;
    }
    for (unsigned r = 0; r < n; r++)
        for (unsigned i = 0; i < 1 << 16; i++)
            c = table[(c ^ buffer[i]) & 255] ^ c >> 8;
    return c;
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static uint64_t do_qsort(unsigned n)
{
    static int v[4096];
    uint64_t sum = 0;
    for (unsigned r = 0; r < n; r++) {
        uint32_t x = r + 1;
        for (unsigned i = 0; i < 4096; i++)
            v[i] = (int)((x = x * 1103515245 + 12345) >> 8);
        qsort(v, 4096, sizeof *v, by_value);
        sum += (uint64_t)v[7];
    }
    return sum;
}

struct node { struct node *next; uint32_t key, val; };
static uint64_t do_hash(unsigned n)
{
    static struct node *head[4096], pool[16384];
    uint64_t sum = 0;
    for (unsigned i = 0; i < 16384; i++) {
        struct node *p = &pool[i];
        p->key = i * 2654435761u;
        p->val = i;
        p->next = head[p->key >> 20];
        head[p->key >> 20] = p;
    }
    for (unsigned r = 0; r < n * 16384; r++) {
        uint32_t key = (r * 7919 % 16384) * 2654435761u;
        struct node *p = head[key >> 20];
        while (p && p->key != key)
            p = p->next;
        sum += p ? p->val : 0;
    }
    return sum;
}

static uint64_t do_lz(unsigned n)
{
    static uint32_t last[4096];
    uint64_t out = 0;
    for (unsigned r = 0; r < n; r++) {
        for (unsigned i = 0; i < 1 << 16;) {
            uint32_t four;
            memcpy(&four, buffer + i, 4);
            uint32_t *l = &last[four * 2654435761u >> 20], from = *l, len = 0;
            *l = i;
            while (from < i && len < 255 && i + len < 1 << 16 && buffer[from + len] == buffer[i + len])
                len++;
            out += len > 3 ? 3 : 1;
            i += len > 3 ? len : 1;
        }
    }
    return out;
}

/* ---- calls and jumps ---- */

static NOINLINE unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static uint64_t do_fib(unsigned n) { return fib(20 + n); }

static NOINLINE uint64_t f_a(uint64_t v) { return v + 1; }
static NOINLINE uint64_t f_b(uint64_t v) { return v ^ 5; }
static NOINLINE uint64_t f_c(uint64_t v) { return v * 3; }
static uint64_t (*volatile indirect[4])(uint64_t) = { f_a, f_b, f_c, f_a };
static uint64_t do_indirect(unsigned n)
{
    uint64_t v = 1;
    for (unsigned i = 0; i < n * 10000; i++)
        v = indirect[(v ^ i) & 3](v);
    return v;
}

/* A byte-code machine with a jump table. */
static uint64_t do_bytecode(unsigned n)
{
    static const uint8_t code[] = { 0, 1, 2, 3, 1, 4, 0, 5, 2, 6, 1, 3, 7 };
    uint64_t a = 1, b = 2, pc = 0;
    unsigned left = n * 10000;
    for (;;) {
        switch (code[pc++]) {
        case 0: a += b; break;
        case 1: b ^= a >> 3; break;
        case 2: a = a * 5 + 1; break;
        case 3: b += 7; break;
        case 4: a ^= b << 1; break;
        case 5: b -= a; break;
        case 6: a -= 3; break;
        default:
            pc = 0;
            if (!--left)
                return a + b;
        }
    }
}

/* ---- floating point ---- */

static uint64_t bits(double d)
{
    uint64_t v;
    memcpy(&v, &d, 8);
    return v;
}

static uint64_t do_matmul(unsigned n)
{
    static double a[64][64], b[64][64], c[64][64];
    for (unsigned i = 0; i < 64; i++)
        for (unsigned k = 0; k < 64; k++)
            a[i][k] = i + k, b[i][k] = i - 0.5 * k, c[i][k] = 0;
    for (unsigned r = 0; r < n; r++)
        for (unsigned i = 0; i < 64; i++)
            for (unsigned j = 0; j < 64; j++) {
                double s = 0;
                for (unsigned k = 0; k < 64; k++)
                    s += a[i][k] * b[k][j];
                c[i][j] += s;
            }
    return bits(c[5][9]);
}

static uint64_t do_smatmul(unsigned n)
{
    static float a[64][64], b[64][64], c[64][64];
    for (unsigned i = 0; i < 64; i++)
        for (unsigned k = 0; k < 64; k++)
            a[i][k] = i + k, b[i][k] = i - 0.5f * k, c[i][k] = 0;
    for (unsigned r = 0; r < n; r++)
        for (unsigned i = 0; i < 64; i++)
            for (unsigned k = 0; k < 64; k++)
                for (unsigned j = 0; j < 64; j++)
                    c[i][j] = c[i][j] * 0.5f + a[i][k] * b[k][j];
    return bits(c[5][9]);
}

static uint64_t do_nbody(unsigned n)
{
    double p[5][3], v[5][3], m[5];
    for (unsigned i = 0; i < 5; i++) {
        m[i] = 1.0 / (i + 1);
        for (unsigned k = 0; k < 3; k++)
            p[i][k] = i * 1.5 + k * 0.25, v[i][k] = 0.01 * (i + k);
    }
    for (unsigned r = 0; r < n * 1000; r++) {
        for (unsigned i = 0; i < 5; i++)
            for (unsigned j = i + 1; j < 5; j++) {
                double d[3], q = 0.01;
                for (unsigned k = 0; k < 3; k++) {
                    d[k] = p[i][k] - p[j][k];
                    q += d[k] * d[k];
                }
                double mag = 0.001 / (q * sqrt(q));
                for (unsigned k = 0; k < 3; k++) {
                    v[i][k] -= d[k] * m[j] * mag;
                    v[j][k] += d[k] * m[i] * mag;
                }
            }
        for (unsigned i = 0; i < 5; i++)
            for (unsigned k = 0; k < 3; k++)
                p[i][k] += 0.001 * v[i][k];
    }
    return bits(p[0][0]);
}

static uint64_t do_mandel(unsigned n)
{
    uint64_t sum = 0;
    for (unsigned y = 0; y < n * 4; y++)
        for (unsigned x = 0; x < 128; x++) {
            double cr = x / 64.0 - 1.5, ci = (y & 127) / 64.0 - 1, zr = 0, zi = 0;
            unsigned i = 0;
            for (; i < 200 && zr * zr + zi * zi < 4; i++) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
            }
            sum += i;
        }
    return sum;
}

static uint64_t do_fft(unsigned n)
{
    static double re[1024], im[1024];
    for (unsigned r = 0; r < n; r++) {
        for (unsigned i = 0; i < 1024; i++)
            re[i] = i & 31, im[i] = 0;
        for (unsigned len = 1024; len > 1; len /= 2) {
            double wr = cos(2 * M_PI / len), wi = -sin(2 * M_PI / len);
            for (unsigned at = 0; at < 1024; at += len) {
                double cr = 1, ci = 0;
                for (unsigned k = at; k < at + len / 2; k++) {
                    unsigned o = k + len / 2;
                    double xr = re[k] - re[o], xi = im[k] - im[o], t;
                    re[k] += re[o];
                    im[k] += im[o];
                    re[o] = xr * cr - xi * ci;
                    im[o] = xr * ci + xi * cr;
                    t = cr * wr - ci * wi;
                    ci = cr * wi + ci * wr;
                    cr = t;
                }
            }
        }
    }
    return bits(re[3] + im[7]);
}

/* ---- the kernel ---- */

static uint64_t do_syscall(unsigned n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n * 1000; i++)
        sum += (uint64_t)syscall(SYS_getppid);
    return sum & 0;
}

static uint64_t do_fork(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pid_t p = fork();
        if (!p)
            _exit(0);
        waitpid(p, NULL, 0);
    }
    return 0;
}

static uint64_t do_exec(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pid_t p = fork();
        if (!p) {
            execl("/proc/self/exe", "work", "nothing", "1", NULL);
            _exit(1);
        }
        waitpid(p, NULL, 0);
    }
    return 0;
}

static uint64_t do_pipe(unsigned n)
{
    int a[2], b[2];
    char c = 0;
    if (pipe(a) || pipe(b))
        return 1;
    pid_t p = fork();
    if (!p) {
        for (unsigned i = 0; i < n * 100; i++)
            if (read(a[0], &c, 1) != 1 || write(b[1], &c, 1) != 1)
                _exit(1);
        _exit(0);
    }
    for (unsigned i = 0; i < n * 100; i++)
        if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
            return 1;
    waitpid(p, NULL, 0);
    return 0;
}

/* Two processes that hand one word to and fro: a switch of context and of address space each time. */
static uint64_t do_switch(unsigned n)
{
    uint32_t *turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t p = fork();
    uint32_t mine = p ? 0 : 1;
    for (unsigned i = 0; i < n * 100; i++) {
        while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != mine)
            syscall(SYS_futex, turn, FUTEX_WAIT, !mine, NULL, NULL, 0);
        __atomic_store_n(turn, !mine, __ATOMIC_RELEASE);
        syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    if (!p)
        _exit(0);
    waitpid(p, NULL, 0);
    munmap(turn, 4096);
    return 0;
}

static uint64_t do_mmap(unsigned n)
{
    for (unsigned i = 0; i < n * 100; i++) {
        uint8_t *p = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p[0] = 1;
        munmap(p, 16 * 4096);
    }
    return 0;
}

static uint64_t do_fault(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned k = 0; k < 64; k++)
            p[k * 4096] = 1;
        munmap(p, 64 * 4096);
    }
    return 0;
}

static uint64_t do_file(unsigned n)
{
    struct stat st;
    uint64_t sum = 0;
    int fd = open("/tmp/work.file", O_CREAT | O_RDWR, 0600);
    if (fd < 0 || write(fd, buffer, 65536) != 65536)
        return 1;
    for (unsigned i = 0; i < n * 100; i++)
        if (stat("/tmp/work.file", &st) || pread(fd, buffer + 4096, 4096, (i & 15) * 4096) != 4096)
            return 1;
    close(fd);
    return sum;
}

static uint64_t do_nothing(unsigned n) { return n; }

static const struct { const char *name; work_fn *fn; } rows[] = {
    { "sieve", do_sieve }, { "sha256", do_sha256 }, { "crc32", do_crc32 }, { "qsort", do_qsort }, { "hash", do_hash }, { "lz", do_lz },
    { "fib", do_fib }, { "indirect", do_indirect }, { "bytecode", do_bytecode },
    { "matmul", do_matmul }, { "smatmul", do_smatmul }, { "nbody", do_nbody }, { "mandel", do_mandel }, { "fft", do_fft },
    { "syscall", do_syscall }, { "fork", do_fork }, { "exec", do_exec }, { "pipe", do_pipe }, { "switch", do_switch },
    { "fault", do_fault }, { "mmap", do_mmap }, { "file", do_file }, { "nothing", do_nothing },
};

int main(int argc, char **argv)
{
    for (unsigned i = 0; i < sizeof buffer; i++)
        buffer[i] = (uint8_t)(i * 2654435761u >> 24 & (i & 64 ? 15 : 255));
    for (int a = 1; a + 1 < argc; a += 2)
        for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
            struct timespec s, e;
            if (strcmp(rows[i].name, argv[a]))
                continue;
            clock_gettime(CLOCK_MONOTONIC, &s);
            uint64_t sum = rows[i].fn((unsigned)atoi(argv[a + 1]));
            clock_gettime(CLOCK_MONOTONIC, &e);
            if (rows[i].fn != do_nothing)
                printf("%s %lld %llx\n", argv[a], (e.tv_sec - s.tv_sec) * 1000000000ll + (e.tv_nsec - s.tv_nsec), (unsigned long long)sum);
            fflush(stdout);
        }
    return 0;
}

/* SPDX-License-Identifier: MIT */
#include "base/random.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

static struct { pthread_mutex_t lock; bool on; uint64_t state; } seeded = { .lock = PTHREAD_MUTEX_INITIALIZER };

void guest_random_seed(uint64_t seed)
{
    pthread_mutex_lock(&seeded.lock);
    seeded.on = true;
    seeded.state = seed;
    pthread_mutex_unlock(&seeded.lock);
}

bool guest_random_seeded(void)
{
    pthread_mutex_lock(&seeded.lock);
    bool on = seeded.on;
    pthread_mutex_unlock(&seeded.lock);
    return on;
}

/* SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void fill(unsigned char *at, size_t n)
{
    while (n) {
        uint64_t v = random_next(&seeded.state);
        size_t k = n < sizeof v ? n : sizeof v;
        memcpy(at, &v, k);
        at += k;
        n -= k;
    }
}

int guest_random(void *buf, size_t n)
{
    unsigned char *at = buf;
    pthread_mutex_lock(&seeded.lock);
    bool on = seeded.on;
    if (on)
        fill(at, n);
    pthread_mutex_unlock(&seeded.lock);
    while (!on && n) {
        ssize_t k = getrandom(at, n, 0);
        if (k < 0 && errno != EINTR)
            return -errno;
        at += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
    return 0;
}

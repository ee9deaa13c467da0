/* SPDX-License-Identifier: MIT */
/* filter-dump: packets into a file that tcpdump and Wireshark read (pcap, version 2.4). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "net/filter.h"

struct dump { struct net_filter f; char *file; uint32_t maxlen; int fd; bool failed; };
struct pcap_head { uint32_t magic; uint16_t major, minor; uint32_t zone, sigfigs, snaplen, link; };
struct pcap_packet { uint32_t sec, usec, caplen, len; };

static bool dump_open(struct net_filter *f, struct err *e)
{
    struct dump *d = (struct dump *)f;
    const struct pcap_head h = { 0xa1b2c3d4, 2, 4, 0, 0, d->maxlen, 1 /* Ethernet */ };
    d->fd = open(d->file, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644) + 1;
    return (d->fd && write(d->fd - 1, &h, sizeof h) == sizeof h) || err_os(e, errno, "file=%s", d->file);
}

static void dump_close(struct net_filter *f)
{
    struct dump *d = (struct dump *)f;
    if (d->fd)
        close(d->fd - 1);
}

static bool dump_steals(const struct net_filter *f) { return false; }

static void dump_seen(struct net_filter *f, const struct filter_packet *p, const uint8_t *data)
{
    struct dump *d = (struct dump *)f;
    struct timespec t;
    if (d->failed || p->len < p->hdr_len)
        return;
    uint32_t len = p->len - p->hdr_len;
    clock_gettime(CLOCK_REALTIME, &t);
    const struct pcap_packet h = { (uint32_t)t.tv_sec, (uint32_t)(t.tv_nsec / 1000), MIN(len, d->maxlen), len };
    const struct iovec iov[2] = { { (void *)&h, sizeof h }, { (void *)(data + p->hdr_len), h.caplen } };
    if (writev(d->fd - 1, iov, 2) == (ssize_t)(sizeof h + h.caplen))
        return;
    log_warn("filter-dump '%s': %s: %s; no more is written", f->obj.id, d->file, strerror(errno));
    d->failed = true;
}

static const struct prop dump_props[] = {
    PROP_STR(struct dump, file, "file", PF_REQUIRED, "File to write"),
    PROP_U32(struct dump, maxlen, "maxlen", 65536, 16, 65536, "Bytes of each packet that are kept"),
    PROP_END
};
static const struct net_filter_class dump_class = {
    .obj = { .name = "filter-dump", .desc = "Packets are written to a pcap file", .base = &net_filter_class, .size = sizeof(struct dump),
             .props = dump_props },
    .open = dump_open, .close = dump_close, .steals = dump_steals, .seen = dump_seen,
};
OBJ_CLASS(&dump_class.obj);

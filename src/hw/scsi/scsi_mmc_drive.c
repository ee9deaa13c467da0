/* SPDX-License-Identifier: MIT */
/* What a CD-ROM drive tells of itself (MMC-6): features, events, mechanism, speed. */
#include "hw/scsi/scsi_mmc.h"

enum { PROFILE_NONE = 0x0000, PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };
enum { INTERFACE_SCSI = 1, INTERFACE_SATA = 7 };
#define CD_SPEED 8820u                          /* kilobytes a second: 50 times 176.4, */
#define DVD_SPEED 22160u                        /* and 16 times 1385 */

/* ---- GET CONFIGURATION: 6.6; features: 5 ---- */

enum { FEATURE_PROFILES = 0x0000, FEATURE_CORE = 0x0001, FEATURE_MORPHING = 0x0002, FEATURE_REMOVABLE = 0x0003, FEATURE_RANDOM_READABLE = 0x0010,
       FEATURE_MULTI_READ = 0x001d, FEATURE_CD_READ = 0x001e, FEATURE_DVD_READ = 0x001f, FEATURE_POWER = 0x0100, FEATURE_TIMEOUT = 0x0105,
       FEATURE_STREAMING = 0x0107, FEATURE_SERIAL = 0x0108 };
enum current { ALWAYS, WITH_MEDIUM, WITH_CD, WITH_DVD };

struct feature { uint16_t code; uint8_t flags /* version << 2, persistent */, current, len, data[8]; };
static const struct feature features[] = {
    { FEATURE_PROFILES, 0x02, ALWAYS, 8, { 0x00, 0x10, 0, 0, 0x00, 0x08, 0, 0 } },     /* DVD-ROM, CD-ROM; bit 0 of [2], [6]: current */
    { FEATURE_CORE, 0x0a, ALWAYS, 8, { 0, 0, 0, INTERFACE_SCSI, 0x01 } },              /* DBE: tells when it is busy */
    { FEATURE_MORPHING, 0x06, ALWAYS, 4, { 0x02 } },                                   /* events of operational change */
    { FEATURE_REMOVABLE, 0x0a, ALWAYS, 4, { 0x39 } },                                  /* a tray; load, eject, lock */
    { FEATURE_RANDOM_READABLE, 0x00, WITH_MEDIUM, 8, { 0, 0, 8, 0, 0, 1 } },           /* 2048 bytes, one block */
    { FEATURE_MULTI_READ, 0x00, WITH_CD, 0, { 0 } },
    { FEATURE_CD_READ, 0x08, WITH_CD, 4, { 0 } },                                      /* neither C2 pointers nor CD-Text */
    { FEATURE_DVD_READ, 0x00, WITH_DVD, 0, { 0 } },
    { FEATURE_POWER, 0x02, ALWAYS, 0, { 0 } },
    { FEATURE_TIMEOUT, 0x06, ALWAYS, 4, { 0 } },
    { FEATURE_STREAMING, 0x0c, WITH_MEDIUM, 4, { 0x08 } },                             /* SET CD SPEED works */
    { FEATURE_SERIAL, 0x02, ALWAYS, 0, { 0 } },                                        /* where there is a number */
};

static bool is_current(const struct scsi_disk *d, const struct feature *f)
{
    bool medium = scsi_disk_has_medium(d), dvd = scsi_disc_is_dvd(d);

    return f->current == ALWAYS || (medium && (f->current == WITH_MEDIUM || (f->current == WITH_DVD) == dvd));
}

static bool has_feature(const struct scsi_disk *d, const struct feature *f)
{
    return f->code != FEATURE_SERIAL || (d->serial && *d->serial);
}

/* 5.4.36: the number, padded to whole words. */
static unsigned put_serial(const struct scsi_disk *d, uint8_t *p)
{
    unsigned n = (unsigned)strlen(d->serial), padded = (n + 3) & ~3u;

    memset(p, ' ', padded);
    memcpy(p, d->serial, n);
    return padded;
}

static unsigned put_feature(const struct scsi_disk *d, const struct feature *f, uint8_t *p)
{
    bool medium = scsi_disk_has_medium(d);

    st_be16(p, f->code);
    p[2] = (uint8_t)(f->flags | is_current(d, f));
    p[3] = f->len;
    memcpy(p + 4, f->data, f->len);
    if (f->code == FEATURE_PROFILES) {
        p[6] = medium && scsi_disc_is_dvd(d);
        p[10] = medium && !scsi_disc_is_dvd(d);
    } else if (f->code == FEATURE_CORE && d->s.dev.bus && d->s.dev.bus->obj.cls != &scsi_bus_class.obj) {
        st_be32(p + 4, INTERFACE_SATA);
    } else if (f->code == FEATURE_SERIAL) {
        p[3] = (uint8_t)put_serial(d, p + 4);
    }
    return 4u + p[3];
}

void scsi_get_configuration(struct scsi_req *r)
{
    enum { ALL, CURRENT_ONES, ONE };
    struct scsi_disk *d = disk_of(r);
    uint8_t b[256] = { 0 }, which = r->cdb[1] & 3;
    uint16_t start = ld_be16(r->cdb + 2);
    unsigned n = 8;

    if (which > ONE) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        if (has_feature(d, f) && (which == ONE ? f->code == start : f->code >= start) && (which != CURRENT_ONES || is_current(d, f)))
            n += put_feature(d, f, b + n);
    }
    st_be32(b, n - 4);
    st_be16(b + 6, !scsi_disk_has_medium(d) ? PROFILE_NONE : scsi_disc_is_dvd(d) ? PROFILE_DVD_ROM : PROFILE_CD_ROM);
    scsi_reply(r, b, n, ld_be16(r->cdb + 7));
}

/* ---- GET EVENT STATUS NOTIFICATION: 6.7, polled ---- */

enum event_class { EVENT_OPERATIONAL = 1, EVENT_POWER = 2, EVENT_MEDIA = 4, EVENT_BUSY = 6 };

void scsi_media_event(struct scsi_disk *d, enum scsi_media_event what)
{
    d->media_event = what;
    d->features_changed |= what != MEDIA_EJECT_REQUEST;
}

static bool event_pending(const struct scsi_disk *d, enum event_class c)
{
    return c == EVENT_MEDIA ? d->media_event != 0 : c == EVENT_OPERATIONAL && d->features_changed;
}

/* The descriptor of a class; @told: its event will not be told again. */
static void put_event(struct scsi_disk *d, enum event_class c, bool told, uint8_t p[4])
{
    switch (c) {
    case EVENT_OPERATIONAL:                     /* 6.7.2.2: other features are current */
        p[0] = d->features_changed ? 2 : 0;
        p[3] = d->features_changed;
        if (told)
            d->features_changed = false;
        break;
    case EVENT_POWER:
        p[1] = 1;                               /* active */
        break;
    case EVENT_MEDIA:
        p[0] = d->media_event;
        p[1] = (uint8_t)((scsi_disk_has_medium(d) ? 2 : 0) | (d->tray_open ? 1 : 0));
        if (told)
            d->media_event = 0;
        break;
    case EVENT_BUSY:                            /* it is not */
        break;
    }
}

/* The first class that is asked for and has an event, else the first one; 0: none of those. */
static enum event_class pick_class(const struct scsi_disk *d, uint8_t classes)
{
    static const enum event_class all[] = { EVENT_OPERATIONAL, EVENT_POWER, EVENT_MEDIA, EVENT_BUSY };
    enum event_class first = 0;

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (!(classes >> all[i] & 1))
            continue;
        if (event_pending(d, all[i]))
            return all[i];
        first = first ? first : all[i];
    }
    return first;
}

void scsi_get_event_status(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[8] = { 0, 0, 0x80 /* NEA: no event is available */, 1 << EVENT_OPERATIONAL | 1 << EVENT_POWER | 1 << EVENT_MEDIA | 1 << EVENT_BUSY };
    enum event_class c = pick_class(d, r->cdb[4]);
    unsigned n = c ? 8 : 4;

    if (!(r->cdb[1] & 1)) {                     /* asynchronous */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (c) {
        b[2] = (uint8_t)c;
        put_event(d, c, ld_be16(r->cdb + 7) > 4, b + 4);
    }
    st_be16(b, (uint16_t)(n - 2));
    scsi_reply(r, b, n, ld_be16(r->cdb + 7));
}

/* ---- mechanism and speed ---- */

/* 6.12 */
void scsi_mechanism_status(struct scsi_req *r)
{
    uint8_t b[8] = { 0, (uint8_t)(disk_of(r)->tray_open ? 0x10 : 0) };

    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 8));
}

/* 6.39: there is one speed, and drivers may ask for any. */
void scsi_set_cd_speed(struct scsi_req *r)
{
}

/* 6.8: one speed for all of the disc, without exceptions from it; nothing is written. */
void scsi_get_performance(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint32_t start = ld_be32(r->cdb + 2), end = (uint32_t)MIN(scsi_disk_blocks(d) - 1, (uint64_t)UINT32_MAX);
    uint8_t b[8 + 16] = { 0 }, exceptions = r->cdb[1] & 3;
    unsigned most = ld_be16(r->cdb + 8), n = exceptions ? 8 : sizeof b;

    if (r->cdb[10] || (r->cdb[1] & 0x1c) != 0x10 || exceptions == 3) {      /* performance data, of reading, within a tenth */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[10] ? 10 : 1);
        return;
    }
    if (!scsi_disk_range(r, start, 1))
        return;
    st_be32(b, n - 4);
    b[4] = exceptions != 0;
    st_be32(b + 8, start);
    st_be32(b + 12, scsi_disc_is_dvd(d) ? DVD_SPEED : CD_SPEED);
    st_be32(b + 16, end);
    st_be32(b + 20, ld_be32(b + 12));
    scsi_reply(r, b, n, 8 + 16ull * most);
}

/* 6.40: the one speed is as good as any that is asked for. */
void scsi_set_streaming(struct scsi_req *r)
{
    enum { SIZE = 28, RESTORE = 4 };
    unsigned n = ld_be16(r->cdb + 9);
    uint8_t b[SIZE];

    if (r->cdb[8]) {                            /* a descriptor of performance */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 8);
        return;
    }
    if (!n)
        return;
    if (n != SIZE || scsi_take(r, 0, b, SIZE) < SIZE) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    if (!(b[0] & RESTORE) && (ld_be32(b + 4) > ld_be32(b + 8) || ld_be32(b + 8) >= scsi_disk_blocks(disk_of(r))))
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, ld_be32(b + 4) > ld_be32(b + 8) ? 4 : 8);
}

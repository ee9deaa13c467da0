/* SPDX-License-Identifier: MIT */
#include "hw/nvme/thermal.h"

#include "hw/nvme/pel.h"

#define NO_OVER 0xffffu                 /* what no temperature reaches */

enum { LEVEL_LIGHT, LEVEL_HEAVY, ABOVE_WARNING, ABOVE_CRITICAL };      /* of nvme_thermal.ns; the first two of .entered, too */

static const struct state_field fields[] = {
    STATE_SKIP(struct nvme_thermal, option, "an option"), STATE_UINT(struct nvme_thermal, temperature), STATE_UINT(struct nvme_thermal, over),
    STATE_UINT(struct nvme_thermal, under), STATE_UINT(struct nvme_thermal, sensor_over), STATE_UINT(struct nvme_thermal, sensor_under),
    STATE_ARRAY(struct nvme_thermal, entered), STATE_UINT(struct nvme_thermal, since),
    STATE_ARRAY(struct nvme_thermal, ns), STATE_END
};
const struct state_desc nvme_thermal_state = { .name = "nvme-thermal", .version = 1, .fields = fields };

/* Bit i: the temperature is in range i of the enumeration. Host controlled levels exclude each other. */
static unsigned ranges(const struct nvme *n)
{
    unsigned light = n->feat[NVME_FEAT_THERMAL] >> 16, heavy = n->feat[NVME_FEAT_THERMAL] & 0xffff, t = n->thermal.temperature;
    bool hot = heavy && t >= heavy;

    return (light && t >= light && !hot ? 1u << LEVEL_LIGHT : 0) | (hot ? 1u << LEVEL_HEAVY : 0) |
           (t >= NVME_TEMP_WARNING && t < NVME_TEMP_CRITICAL ? 1u << ABOVE_WARNING : 0) | (t >= NVME_TEMP_CRITICAL ? 1u << ABOVE_CRITICAL : 0);
}

/* Time up to now is that of the present ranges. */
static void account(struct nvme *n)
{
    int64_t now = clock_now(CLOCK_VM);

    for (unsigned i = 0; i < ARRAY_SIZE(n->thermal.ns); i++)
        if (ranges(n) >> i & 1)
            n->thermal.ns[i] += now - n->thermal.since;
    n->thermal.since = now;
}

static void entered(struct nvme *n, unsigned before)
{
    unsigned now = ranges(n) & ~before;

    for (unsigned i = 0; i < ARRAY_SIZE(n->thermal.entered); i++)
        n->thermal.entered[i] += now >> i & 1;
}

static void check_threshold(struct nvme *n)
{
    const struct nvme_thermal *t = &n->thermal;
    bool bad = t->temperature >= MIN(t->over, t->sensor_over) || t->temperature <= MAX(t->under, t->sensor_under), was = n->critical & 2;

    n->critical = (uint8_t)((n->critical & ~2) | (bad ? 2 : 0));
    if (bad && !was)
        nvme_event(n, NVME_EV_TEMPERATURE, NVME_LOG_SMART);
}

/* Event 0Dh: by how many kelvin a threshold is exceeded, 0 where it is no more; which one. */
static void excursions(struct nvme *n, unsigned was)
{
    static const uint16_t limits[] = { NVME_TEMP_WARNING, NVME_TEMP_CRITICAL };
    unsigned now = n->thermal.temperature;

    for (unsigned i = 0; i < ARRAY_SIZE(limits); i++)
        if ((was >= limits[i]) != (now >= limits[i])) {
            uint8_t d[2] = { (uint8_t)(now >= limits[i] ? MIN(now - limits[i] + 1, 255u) : 0), (uint8_t)(i + 1) };

            nvme_pel_add(n, NVME_PEL_THERMAL, d, sizeof d);
        }
}

void nvme_thermal_changed(void *arg)
{
    struct nvme *n = arg;
    unsigned before = ranges(n), was = n->thermal.temperature;

    account(n);
    n->thermal.temperature = n->thermal.option;
    entered(n, before);
    excursions(n, was);
    check_threshold(n);
}

void nvme_thermal_reset(struct nvme *n)
{
    account(n);
    n->thermal.over = NVME_TEMP_WARNING;
    n->thermal.sensor_over = NO_OVER;
    n->thermal.under = n->thermal.sensor_under = 0;
    n->critical = 0;
    check_threshold(n);
}

void nvme_thermal_log(struct nvme *n, uint8_t *b)
{
    const struct nvme_thermal *t = &n->thermal;

    account(n);
    st_le16(b + 1, t->temperature);
    st_le32(b + 192, (uint32_t)(t->ns[ABOVE_WARNING] / INT64_C(60000000000)));
    st_le32(b + 196, (uint32_t)(t->ns[ABOVE_CRITICAL] / INT64_C(60000000000)));
    st_le16(b + 200, t->temperature);                   /* sensor 1 */
    for (unsigned i = 0; i < ARRAY_SIZE(t->entered); i++) {
        st_le32(b + 216 + 4 * i, t->entered[i]);
        st_le32(b + 224 + 4 * i, (uint32_t)(t->ns[i] / INT64_C(1000000000)));
    }
}

/* ---- features: thresholds (5.27.1.3), thermal management (5.27.1.13) ---- */

enum { COMPOSITE, SENSOR_1, SENSORS = 15 };             /* TMPSEL; all of them: only to set */

/* NULL: there is none. */
static uint16_t *threshold(struct nvme_req *r)
{
    unsigned sensor = r->cmd.cdw11 >> 16 & 15, kind = r->cmd.cdw11 >> 20 & 3;
    struct nvme_thermal *t = &r->n->thermal;

    if ((sensor > SENSOR_1 && sensor != SENSORS) || kind > 1)
        return NULL;
    if (sensor == COMPOSITE)
        return kind ? &t->under : &t->over;
    return kind ? &t->sensor_under : &t->sensor_over;
}

uint16_t nvme_threshold_get(struct nvme_req *r, enum nvme_select sel)
{
    const struct nvme_thermal *t = &r->n->thermal;
    const uint16_t *which = threshold(r);

    if (!which || (r->cmd.cdw11 >> 16 & 15) == SENSORS)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (sel)
        r->result = which == &t->over ? NVME_TEMP_WARNING : which == &t->sensor_over ? NO_OVER : 0;
    else
        r->result = *which;
    return NVME_OK;
}

uint16_t co_nvme_threshold_set(struct nvme_req *r, uint32_t v)
{
    uint16_t *t = threshold(r);

    if (!t)
        return NVME_INVALID_FIELD | NVME_DNR;
    *t = (uint16_t)v;
    check_threshold(r->n);
    return NVME_OK;
}

uint16_t co_nvme_thermal_set(struct nvme_req *r, uint32_t v)
{
    unsigned light = v >> 16, heavy = v & 0xffff, before = ranges(r->n);

    if ((light && (light < NVME_TMT_MIN || light > NVME_TMT_MAX)) || (heavy && (heavy < NVME_TMT_MIN || heavy > NVME_TMT_MAX)) ||
        (light && heavy && light >= heavy))
        return NVME_INVALID_FIELD | NVME_DNR;
    account(r->n);
    r->n->feat[NVME_FEAT_THERMAL] = v;
    entered(r->n, before);
    return NVME_OK;
}

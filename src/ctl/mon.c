/* SPDX-License-Identifier: MIT */
#include "ctl/mon.h"

#include <stdlib.h>
#include <string.h>
#include "core/run.h"

static struct list mons = LIST_INIT(mons);

size_t mon_unread(const struct mon *m)
{
    return m->out.len - m->out_pos;
}

static void flush(struct mon *m)
{
    while (mon_unread(m)) {
        size_t n = chr_write(&m->front, m->out.s + m->out_pos, mon_unread(m));
        if (!n)
            return;
        m->out_pos += n;
    }
    m->out.len = m->out_pos = 0;
}

static void compact(struct mon *m)
{
    if (m->out_pos < MON_OUT_HIGH)
        return;
    memmove(m->out.s, m->out.s + m->out_pos, mon_unread(m));
    m->out.len -= m->out_pos;
    m->out_pos = 0;
}

void mon_write(struct mon *m, const char *s, size_t n)
{
    if (!m->open)
        return;
    compact(m);
    while (m->crlf && n) {
        const char *nl = memchr(s, '\n', n);
        if (!nl)
            break;
        str_addn(&m->out, s, (size_t)(nl - s));
        str_addn(&m->out, "\r\n", 2);
        n -= (size_t)(nl + 1 - s);
        s = nl + 1;
    }
    str_addn(&m->out, s, n);
    flush(m);
}

void mon_accept(struct mon *m)
{
    chr_accept(&m->front);
}

static size_t on_can_read(void *arg)
{
    struct mon *m = arg;
    return m->ops->busy(m) || mon_unread(m) > MON_OUT_HIGH ? 0 : m->input_unit ? m->input_unit : 4096;
}

static void on_read(void *arg, const uint8_t *buf, size_t n)
{
    struct mon *m = arg;
    m->ops->read(m, buf, n);
}

static void on_writable(void *arg)
{
    struct mon *m = arg;
    bool held = mon_unread(m) > MON_OUT_HIGH;
    flush(m);
    if (held && mon_unread(m) <= MON_OUT_HIGH)
        mon_accept(m);
}

static void set_open(struct mon *m, bool open)
{
    if (m->open == open)
        return;
    m->out.len = m->out_pos = 0;
    m->open = open;
    if (open)
        m->ops->opened(m);
    else
        m->ops->closed(m);
}

static void on_event(void *arg, enum chr_event ev)
{
    struct mon *m = arg;
    if (ev == CHR_OPENED || ev == CHR_CLOSED)
        set_open(m, ev == CHR_OPENED);
    else if ((ev == CHR_MUX_IN || ev == CHR_MUX_OUT) && m->ops->focus)
        m->ops->focus(m, ev == CHR_MUX_IN);
}

static void mon_free(struct mon *m)
{
    if (m->front.chr)
        chr_disconnect(&m->front);
    if (m->open)
        m->ops->closed(m);
    list_del(&m->link);
    obj_unref(m->chardev);
    str_free(&m->out);
    free(m->id);
    m->ops->free(m);
}

bool mon_connect(struct mon *m, struct obj *chardev, const char *id, struct err *e)
{
    m->id = xstrdup(id);
    m->front = (struct chr_front){ .can_read = on_can_read, .read = on_read, .event = on_event, .writable = on_writable, .arg = m };
    list_push(&mons, &m->link);
    if (!chr_connect(&m->front, chardev, NULL, id, e)) {
        mon_free(m);
        return false;
    }
    m->chardev = obj_ref(chardev);
    if (chr_is_open(&m->front))
        set_open(m, true);
    return true;
}

bool mon_each(bool (*fn)(struct mon *, void *), void *arg)
{
    struct mon *m;
    list_for_each(m, &mons, link)
        if (!fn(m, arg))
            return false;
    return true;
}

static bool any_unread(void)
{
    struct mon *m;
    list_for_each(m, &mons, link)
        if (m->open && mon_unread(m))
            return true;
    return false;
}

static bool any_running(void)
{
    struct mon *m;
    list_for_each(m, &mons, link)
        if (m->ops->running && m->ops->running(m))
            return true;
    return false;
}

/* Serves events while @any, but no longer than @ms. */
static void serve_while(bool (*any)(void), int ms)
{
    int64_t end = clock_now(CLOCK_HOST) + ms * INT64_C(1000000);
    while (any() && clock_now(CLOCK_HOST) < end)
        loop_run_once(loop_main(), 10 * 1000000);
}

/* What commands waited for has ended or failed by now: they end, too, and the last word is read. */
static void end_monitors(void)
{
    serve_while(any_running, 5000);
    serve_while(any_unread, 200);
    struct mon *m;
    list_for_each(m, &mons, link)
        mon_free(m);
}
static const struct run_end monitors_end = { "monitors", RUN_END_MONITORS, end_monitors };
RUN_END(&monitors_end);

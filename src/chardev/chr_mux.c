/* SPDX-License-Identifier: MIT */
/*
 * "mux": one back end, several front ends. All of them write; the one in focus gets the input; the escape character
 * (Ctrl-a) and a letter change the focus and do what a person at the terminal needs.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "chardev/chr_int.h"
#include "core/cmd.h"
#include "core/run.h"

enum { MUX_MAX_FRONTS = 32, MUX_BATCH = 256 };

struct chr_mux {
    struct chr chr;
    struct obj *base_obj;               /* option chardev= */
    struct chr_front base;
    struct chr_link *focus;
    bool escaped;                       /* the escape character was typed */
    bool stamps, line_start;            /* time stamps before each line */
    int64_t stamp_from;
    char stamp[32];
    unsigned stamp_len, stamp_done;
};

static uint8_t mux_escape = 0x01;       /* Ctrl-a; -echr */

static void mux_say(struct chr_mux *m, const char *s) { chr_write(&m->base, s, strlen(s)); }

static void mux_set_focus(struct chr_mux *m, struct chr_link *l)
{
    if (l == m->focus)
        return;
    if (m->focus)
        chr_link_event(m->focus, CHR_MUX_OUT);
    m->focus = l;
    if (l) {
        chr_link_event(l, CHR_MUX_IN);
        chr_accept(&m->base);
    }
}

static void mux_help(struct chr_mux *m)
{
    static const char *const rows[] = { "h    print this help", "x    exit the program",
        "t    toggle console time stamps", "b    send break (magic sysrq)", "c    switch between console and monitor" };
    char key[16], line[96];
    if (mux_escape > 0 && mux_escape < 27)
        snprintf(key, sizeof key, "C-%c", mux_escape - 1 + 'a');
    else
        snprintf(key, sizeof key, "0x%02x", mux_escape);
    mux_say(m, "\r\n");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        snprintf(line, sizeof line, "%s %s\r\n", key, rows[i]);
        mux_say(m, line);
    }
    snprintf(line, sizeof line, "%s %s  sends %s\r\n", key, key, key);
    mux_say(m, line);
}

/* The letter after the escape character; true if it is to be passed on instead. */
static bool mux_key(struct chr_mux *m, uint8_t ch)
{
    if (ch == mux_escape)
        return true;
    switch (ch) {
    case 'h': case '?':
        mux_help(m);
        break;
    case 'x':
        mux_say(m, "backplane: terminated\r\n");
        run_request_quit(CAUSE_HOST_UI, 0);
        break;
    case 'b':
        if (m->focus)
            chr_link_event(m->focus, CHR_BREAK);
        break;
    case 'c':
        mux_set_focus(m, chr_link_next(&m->chr, m->focus));
        break;
    case 't':
        m->stamps = !m->stamps;
        m->stamp_from = clock_now(CLOCK_HOST);
        m->line_start = false;
        break;
    default:
        break;
    }
    return false;
}

static size_t mux_base_can_read(void *arg)
{
    struct chr_mux *m = arg;
    return m->focus ? MIN(chr_link_room(m->focus), (size_t)MUX_BATCH) : 1;
}

/* n <= the room of the link in focus, and a change of focus in the middle finds an empty or a read-from ring at worst full. */
static void mux_base_read(void *arg, const uint8_t *buf, size_t n)
{
    struct chr_mux *m = arg;
    for (size_t i = 0; i < n; i++) {
        bool pass = !m->escaped && buf[i] != mux_escape;
        if (m->escaped) {
            m->escaped = false;
            pass = mux_key(m, buf[i]);
        } else if (!pass) {
            m->escaped = true;
        }
        if (pass && m->focus && chr_link_room(m->focus))
            chr_link_rx(m->focus, &buf[i], 1);
    }
}

static void mux_base_event(void *arg, enum chr_event ev)
{
    struct chr_mux *m = arg;
    if (ev == CHR_OPENED || ev == CHR_CLOSED)
        chr_set_open(&m->chr, ev == CHR_OPENED);
    else if (ev == CHR_BREAK && m->focus)
        chr_link_event(m->focus, ev);
}

static void mux_base_writable(void *arg) { chr_tx_ready(&((struct chr_mux *)arg)->chr); }

static void mux_make_stamp(struct chr_mux *m)
{
    int64_t ms = (clock_now(CLOCK_HOST) - m->stamp_from) / 1000000;
    m->stamp_len = (unsigned)snprintf(m->stamp, sizeof m->stamp, "[%02d:%02d:%02d.%03d] ", (int)(ms / 3600000 % 1000),
                                      (int)(ms / 60000 % 60), (int)(ms / 1000 % 60), (int)(ms % 1000));
    m->stamp_done = 0;
}

/* A line at a time while stamping. */
static ssize_t mux_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_mux *m = (struct chr_mux *)c;
    if (!m->stamps) {
        size_t done = chr_write(&m->base, buf, n);
        return done ? (ssize_t)done : -EAGAIN;
    }
    if (m->line_start && !m->stamp_len)
        mux_make_stamp(m);
    if (m->stamp_len) {
        m->stamp_done += (unsigned)chr_write(&m->base, m->stamp + m->stamp_done, m->stamp_len - m->stamp_done);
        if (m->stamp_done < m->stamp_len)
            return -EAGAIN;
        m->stamp_len = 0;
        m->line_start = false;
    }
    const uint8_t *nl = memchr(buf, '\n', n);
    size_t want = nl ? (size_t)(nl - buf) + 1 : n;
    size_t done = chr_write(&m->base, buf, want);
    m->line_start = nl && done == want;
    return done ? (ssize_t)done : -EAGAIN;
}

static void mux_link_added(struct chr *c, struct chr_link *l)
{
    struct chr_mux *m = (struct chr_mux *)c;
    if (!m->focus)
        mux_set_focus(m, l);            /* the first to come; a monitor that joins a console leaves it in focus */
}

static void mux_link_removed(struct chr *c, struct chr_link *l)
{
    struct chr_mux *m = (struct chr_mux *)c;
    if (m->focus == l) {
        m->focus = NULL;
        mux_set_focus(m, chr_link_next(c, NULL));
    }
}

static void mux_resume(struct chr *c) { chr_accept(&((struct chr_mux *)c)->base); }
static bool mux_open(struct chr *c, struct err *e)
{
    struct chr_mux *m = (struct chr_mux *)c;
    char *user = xasprintf("mux '%s'", c->obj.id);
    m->base = (struct chr_front){ .can_read = mux_base_can_read, .read = mux_base_read, .event = mux_base_event,
                                  .writable = mux_base_writable, .arg = m };
    bool ok = chr_connect(&m->base, m->base_obj, NULL, user, e);
    free(user);
    if (ok && chr_is_open(&m->base))
        chr_set_open(c, true);
    return ok;
}

static void mux_close(struct chr *c) { chr_disconnect(&((struct chr_mux *)c)->base); }

static const struct prop mux_props[] = {
    PROP_LINK(struct chr_mux, base_obj, "chardev", &chr_class, PF_REQUIRED, "The chardev that is shared"), PROP_END
};

const struct chr_class chr_mux_class = {
    .obj = { .name = "chardev-mux", .desc = "Shares another chardev between front ends", .base = &chr_class,
             .size = sizeof(struct chr_mux), .props = mux_props },
    .max_fronts = MUX_MAX_FRONTS, .writes_closed = true,
    .open = mux_open, .close = mux_close, .write = mux_write, .rx_resume = mux_resume,
    .link_added = mux_link_added, .link_removed = mux_link_removed,
};
OBJ_CLASS(&chr_mux_class.obj);

static bool opt_echr(const char *arg, struct err *e)
{
    uint64_t v;
    if (!parse_u64(arg, &v) || v > 255)
        return err_set(e, ERR_VALUE, "'%s' is not a character code (0..255; 1 is Ctrl-a)", arg);
    mux_escape = (uint8_t)v;
    return true;
}

static const struct cli_opt cli_echr = { .name = "echr", .arg = "CODE", .section = "Character", .phase = CLI_EARLY,
    .doc = "The escape character of a shared terminal, instead of 1 (Ctrl-a)", .apply = opt_echr };
CLI_OPT(&cli_echr);

/* SPDX-License-Identifier: MIT */
/* announce-self: cards tell the switches around them where they are, a few times with growing pauses. Main loop. */
#include <stdlib.h>

#include "core/cmd.h"
#include "net/net_int.h"

struct announcer {
    struct list link;
    char *id;                   /* several run side by side; the same id replaces */
    char **only;                /* cards, by id; NULL: all */
    int64_t pause, max, step, rounds;   /* milliseconds; rounds left */
    struct timer timer;
};

static struct list running = LIST_INIT(running);

struct announce_args { char **interfaces; char *id; int64_t initial, max, rounds, step; };
#define MS(f, nm, ds) { .name = nm, .doc = ds, .type = PROP_T_S64, .flags = PF_REQUIRED, PROP_OFF(struct announce_args, f), .max = 100000 }
static const struct prop announce_props[] = {
    MS(initial, "initial", "Milliseconds before the second announcement"),
    MS(max, "max", "Longest pause, in milliseconds"),
    MS(rounds, "rounds", "How many announcements; 0 ends those under way"),
    MS(step, "step", "By what each pause is longer than the one before"),
    PROP_STRV(struct announce_args, interfaces, "interfaces", "Cards that announce themselves; all if left out"),
    PROP_STR(struct announce_args, id, "id", 0, "Name of this series"),
    PROP_END
};

static void announcer_free(struct announcer *a)
{
    list_del(&a->link);
    timer_fini(&a->timer);
    for (char **s = a->only; s && *s; s++)
        free(*s);
    free(a->only);
    free(a->id);
    free(a);
}

static bool wanted(const struct announcer *a, const char *card)
{
    if (!a->only)
        return true;
    for (char **s = a->only; *s; s++)
        if (str_eq(*s, card))
            return true;
    return false;
}

static void announce(void *arg)
{
    struct announcer *a = arg;
    struct obj *c = obj_container("netdev"), *it;
    list_for_each(it, &c->children, sibling) {
        struct net_port *p = ((struct netdev *)it)->port, *front = p ? net_port_peer(p) : NULL;
        if (front && wanted(a, net_port_user(front)))
            net_port_announce(front);
    }
    if (--a->rounds <= 0) {
        announcer_free(a);
        return;
    }
    timer_arm(&a->timer, clock_now(CLOCK_HOST) + a->pause * 1000000);
    a->pause = MIN(a->pause + a->step, a->max);
}

static char **copy_list(char **l)
{
    size_t n = 0;
    while (l && l[n])
        n++;
    char **c = n ? xcalloc(n + 1, sizeof *c) : NULL;
    for (size_t i = 0; i < n; i++)
        c[i] = xstrdup(l[i]);
    return c;
}

static struct announcer *series(const char *id)
{
    struct announcer *a;
    list_for_each(a, &running, link)
        if (str_eq(a->id, id))
            return a;
    return NULL;
}

static void start(const struct announce_args *g)
{
    const char *id = g->id ? g->id : "";
    struct announcer *a = series(id);
    if (a)
        announcer_free(a);
    if (!g->rounds)
        return;
    a = xnew(struct announcer);
    *a = (struct announcer){ .id = xstrdup(id), .only = copy_list(g->interfaces), .pause = g->initial, .max = g->max, .step = g->step,
                             .rounds = g->rounds };
    list_push(&running, &a->link);
    timer_init(&a->timer, CLOCK_HOST, loop_main(), NULL, announce, a);
    announce(a);
}

static json_t *co_announce(void *args, struct err *e)
{
    start(args);
    return json_object();
}
static const struct qmp_cmd cmd_announce = { .name = "announce-self", .doc = "Cards tell the switches around them where they are",
    .args = announce_props, .args_size = sizeof(struct announce_args), .co_run = co_announce, .ret = qmp_nothing };
QMP_CMD(&cmd_announce);

static void hmp_announce(const char *arg, struct str *out)
{
    start(&(struct announce_args){ .initial = 50, .max = 550, .rounds = 5, .step = 100 });
}
static const struct hmp_cmd hmp_announce_self = { "announce_self", "", "", "cards tell the switches around them where they are", hmp_announce };
HMP_CMD(&hmp_announce_self);

/* SPDX-License-Identifier: MIT */
/* -netdev, -nic, -net; netdev_add, netdev_del, set_link, info network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "core/backend.h"
#include "core/help.h"
#include "core/cmd.h"
#include "core/dev.h"
#include "net/net_int.h"

/* Keys that may be given several times: each becomes a list. */
static const char *const list_keys[] = { "hostfwd", "guestfwd", "dnssearch", NULL };

/* The list @key of @o, made of one string, of strings, or of QMP's {"str": S}. */
static void to_list(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key), *it, *list;
    size_t i;
    if (!v)
        return;
    list = json_array();
    if (!json_is_array(v))
        json_array_append(list, v);
    json_array_foreach(v, i, it)
        json_array_append(list, json_is_object(it) && json_object_get(it, "str") ? json_object_get(it, "str") : it);
    json_object_set_new(o, key, list);
}

/* The option text without its repeated keys, which are collected into lists. */
static json_t *parse_netdev(const char *text, struct err *e)
{
    struct str rest = { 0 };
    json_t *lists = json_object(), *o;
    const char *key, *at = text;
    json_t *v;
    while (*text != '{' && *at) {
        const char *end = at;
        while (*end && !(end[0] == ',' && end[1] != ','))
            end += end[0] == ',' ? 2 : 1;
        const char *eq = memchr(at, '=', (size_t)(end - at));
        char *name = eq ? xstrndup(at, (size_t)(eq - at)) : NULL;
        if (name && str_in_list(name, list_keys)) {
            if (!json_object_get(lists, name))
                json_object_set_new(lists, name, json_array());
            json_array_append_new(json_object_get(lists, name), json_stringn(eq + 1, (size_t)(end - eq - 1)));
        } else {
            str_add(&rest, rest.len ? "," : "");
            str_addn(&rest, at, (size_t)(end - at));
        }
        free(name);
        at = *end ? end + 1 : end;
    }
    o = *text == '{' ? opt_parse(text, "type", e) : opt_parse(rest.s ? rest.s : "", "type", e);
    str_free(&rest);
    if (o)
        json_object_foreach(lists, key, v)
            json_object_set(o, key, v);
    json_decref(lists);
    return o;
}

struct netdev *netdev_create(json_t *opts, struct err *e)
{
    struct netdev *nd = NULL;
    json_t *o = json_deep_copy(opts);
    char *type = opt_take(o, "type"), *id = opt_take(o, "id");
    const struct obj_class *c = NULL;
    for (const char *const *k = list_keys; *k; k++)
        to_list(o, *k);
    if (!type)
        err_set(e, ERR_VALUE, "the type of the network back end is missing"), err_hint(e, "TYPE,id=ID[,...]; types: -netdev help");
    else if (!id)
        err_set(e, ERR_VALUE, "'id' is missing: a network back end needs a name by which a device finds it");
    else
        c = backend_find(&netdev_class, type, e);
    if (c && ((const struct netdev_class *)c)->expand) {
        json_t *other = ((const struct netdev_class *)c)->expand(o, e);
        char *as = other ? opt_take(other, "type") : NULL;
        c = as ? backend_find(&netdev_class, as, e) : NULL;
        free(as);
        json_decref(o);
        o = other;
    }
    if (c)
        nd = (struct netdev *)obj_create(c, id, o, NULL, e);
    free(type);
    free(id);
    json_decref(o);
    return nd;
}

static bool netdev_help(json_t *o, struct err *e)
{
    struct str out = { 0 };
    char *type = opt_take(o, "type");
    const struct obj_class *k = type ? backend_find(&netdev_class, type, e) : NULL;
    if (type && !k) {
        free(type);
        return false;
    }
    free(type);
    if (k)
        backend_help_type(&netdev_class, k, &out);
    else
        backend_help_types(&netdev_class, "Network back ends (-netdev TYPE,help shows the options)", &out);
    help_exit(&out);
}

static bool opt_netdev(const char *arg, struct err *e)
{
    json_t *o = parse_netdev(arg, e);
    bool ok = o && (opt_asks_help(o) ? netdev_help(o, e) : netdev_create(o, e) != NULL);
    json_decref(o);
    return ok;
}
static const struct cli_opt cli_netdev = { .name = "netdev", .arg = "TYPE,id=ID[,...]", .section = "Network", .phase = CLI_NET,
    .doc = "Adds a network back end", .apply = opt_netdev, .helps = true, .of = &netdev_class };
CLI_OPT(&cli_netdev);

/* ---- -nic: a back end and its card in one; -net: back ends and cards on hub 0 ---- */

static json_t *nic_devices;             /* options of the cards to make in CLI_DEVICE */
static unsigned nic_count;

/* model=help: prints the cards and ends the process. */
static void card_help(json_t *o)
{
    struct str out = { 0 };
    if (!opt_is_help(json_string_value(json_object_get(o, "model"))))
        return;
    help_devices("Network", &out);
    help_exit(&out);
}

/* A card on back end @nd; takes the options of @o that are a card's. */
static void push_card(const char *nd, json_t *o)
{
    static const struct { const char *key, *as; } keys[] = { { "mac", "mac" }, { "macaddr", "mac" }, { "addr", "addr" }, { "bus", "bus" },
                                                             { "vectors", "vectors" } };
    char *model = opt_take(o, "model");
    bool virtio = !model || !strcmp(model, "virtio");           /* its old name */
    json_t *card = json_pack("{ssss}", "driver", virtio ? "virtio-net-pci" : model, "netdev", nd);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        char *v = opt_take(o, keys[i].key);
        if (v)
            json_object_set_new(card, keys[i].as, json_string(v));
        free(v);
    }
    if (!nic_devices)
        nic_devices = json_array();
    json_array_append_new(nic_devices, card);
    free(model);
}

/* Back end of @o (a type and its options), named @id or by what the options say. */
static bool make_back_end(json_t *o, const char *id, struct err *e)
{
    json_object_set_new(o, "id", json_string(id));
    return netdev_create(o, e) != NULL;
}

static bool opt_nic(const char *arg, struct err *e)
{
    char made[24];
    if (str_eq(arg, "none"))
        return true;
    json_t *o = parse_netdev(arg, e);
    if (!o)
        return false;
    if (opt_asks_help(o))
        return netdev_help(o, e);
    card_help(o);
    char *given = opt_take(o, "id");
    snprintf(made, sizeof made, "net%03u", nic_count++);
    push_card(given ? given : made, o);
    bool ok = make_back_end(o, given ? given : made, e);
    free(given);
    json_decref(o);
    return ok;
}
static const struct cli_opt cli_nic = { .name = "nic", .arg = "TYPE[,model=CARD][,mac=M][,...]", .section = "Network",
    .phase = CLI_NET, .doc = "Adds a network back end and a card on it; none: no default card", .apply = opt_nic, .helps = true, .of = &netdev_class };
CLI_OPT(&cli_nic);

/* A port of hub 0 for a card (@back_end NULL) or for a back end; its name into @id. */
static bool hub_port(const char *back_end, char id[24], struct err *e)
{
    static unsigned n;
    snprintf(id, 24, "hub0port%u", n++);
    json_t *o = json_pack("{ss}", "type", "hubport");
    if (back_end)
        json_object_set_new(o, "netdev", json_string(back_end));
    bool ok = make_back_end(o, id, e);
    json_decref(o);
    return ok;
}

static bool net_card(json_t *o, struct err *e)
{
    char *nd = opt_take(o, "netdev"), port[24];
    bool ok = nd || hub_port(NULL, port, e);
    if (ok)
        push_card(nd ? nd : port, o);
    free(nd);
    const char *left = json_object_iter_key(json_object_iter(o));
    return ok && (!left || err_set(e, ERR_UNKNOWN, "unknown option '%s' of a card: model, macaddr, addr, vectors, netdev, name", left));
}

static bool opt_net(const char *arg, struct err *e)
{
    char made[24], port[24];
    if (str_eq(arg, "none"))
        return true;
    json_t *o = parse_netdev(arg, e);
    if (!o)
        return false;
    if (opt_asks_help(o))
        return netdev_help(o, e);
    card_help(o);
    char *name = opt_take(o, "name"), *id = opt_take(o, "id");
    bool card = str_eq(json_string_value(json_object_get(o, "type")), "nic"), ok;
    if (card) {
        json_object_del(o, "type");
        ok = net_card(o, e);
    } else {
        snprintf(made, sizeof made, "net%03u", nic_count++);
        const char *nd = id ? id : name ? name : made;
        ok = make_back_end(o, nd, e) && hub_port(nd, port, e);
    }
    free(name);
    free(id);
    json_decref(o);
    return ok;
}
static const struct cli_opt cli_net = { .name = "net", .arg = "nic|TYPE[,...]", .section = "Network", .phase = CLI_NET,
    .doc = "Adds a card to hub 0, or a network back end; none: no default card", .apply = opt_net, .helps = true, .of = &netdev_class };
CLI_OPT(&cli_net);

static bool step_nic(struct err *e)
{
    json_t *card;
    size_t i;
    json_array_foreach(nic_devices, i, card)
        if (!dev_create_from_opts(card, false, e))
            return err_prefix(e, "-nic, -net");
    return true;
}
static const struct cli_step cli_step_nic = { .name = "nic", .phase = CLI_DEVICE, .prio = 10, .run = step_nic };
CLI_STEP(&cli_step_nic);

/* ---- monitors ---- */

static json_t *co_netdev_add(void *args, struct err *e)
{
    return netdev_create(args, e) ? json_object() : NULL;
}
static const struct prop add_args_props[] = {
    { .name = "type", .doc = "Type of the back end", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "id", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd qmp_netdev_add = { .name = "netdev_add", .doc = "Adds a network back end", .co_run = co_netdev_add, .raw = true,
    .args = add_args_props, .tag = "type", .one_of = &netdev_class, .ret = qmp_nothing };
QMP_CMD(&qmp_netdev_add);

struct id_args { char *id; };
static const struct prop id_args_props[] = { PROP_STR(struct id_args, id, "id", PF_REQUIRED, "Name of the network back end"), PROP_END };

static bool netdev_remove(const char *id, struct err *e)
{
    struct obj *o = obj_find("netdev", id);
    if (!o)
        return err_set(e, ERR_NOT_FOUND, "Device '%s' not found", id);
    return obj_user_delete(o, e);
}

static json_t *co_netdev_del(void *args, struct err *e)
{
    return netdev_remove(((struct id_args *)args)->id, e) ? json_object() : NULL;
}
static const struct qmp_cmd qmp_netdev_del = { .name = "netdev_del", .doc = "Removes a network back end", .args = id_args_props,
    .args_size = sizeof(struct id_args), .co_run = co_netdev_del, .ret = qmp_nothing };
QMP_CMD(&qmp_netdev_del);

/* The port that NAME means: a back end's, or that of the device whose name it is. */
static struct net_port *port_by_name(const char *name)
{
    struct obj *c = obj_container("netdev"), *it;
    struct obj *o = obj_find("netdev", name);
    if (o)
        return ((struct netdev *)o)->port;
    list_for_each(it, &c->children, sibling) {
        struct net_port *p = ((struct netdev *)it)->port, *front = p ? net_port_peer(p) : NULL;
        if (front && str_eq(net_port_user(front), name))
            return front;
    }
    return NULL;
}

struct link_args { char *name; bool up; };
static const struct prop link_args_props[] = {
    PROP_STR(struct link_args, name, "name", PF_REQUIRED, "Name of the back end or of the card"),
    { .name = "up", .doc = "Whether the cable is plugged in", .type = PROP_T_BOOL, .flags = PF_REQUIRED, PROP_OFF(struct link_args, up) },
    PROP_END
};

static json_t *co_set_link(void *args, struct err *e)
{
    struct link_args *a = args;
    struct net_port *p = port_by_name(a->name);
    if (!p) {
        err_set(e, ERR_NOT_FOUND, "Device '%s' not found", a->name);
        return NULL;
    }
    net_port_set_link(p, a->up);
    return json_object();
}
static const struct qmp_cmd qmp_set_link = { .name = "set_link", .doc = "Plugs a network cable in or out", .args = link_args_props,
    .args_size = sizeof(struct link_args), .co_run = co_set_link, .ret = qmp_nothing };
QMP_CMD(&qmp_set_link);

static void hmp_netdev_add(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *o = parse_netdev(arg, &e);
    if (!o || !netdev_create(o, &e))
        hmp_error(out, &e);
    json_decref(o);
}
static const struct hmp_cmd hmp_add = { .name = "netdev_add", .aliases = "", .args = "TYPE,id=ID[,...]", .doc = "adds a network back end",
    .co_run = hmp_netdev_add };
HMP_CMD(&hmp_add);

static void hmp_netdev_del(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    if (!netdev_remove(arg, &e))
        hmp_error(out, &e);
}
static const struct hmp_cmd hmp_del = { .name = "netdev_del", .aliases = "", .args = "ID", .doc = "removes a network back end",
    .co_run = hmp_netdev_del };
HMP_CMD(&hmp_del);

static void hmp_set_link(const char *arg, struct str *out)
{
    char name[64];
    char state[8];
    bool ok = sscanf(arg, "%63s %7s", name, state) == 2 && (str_eq(state, "on") || str_eq(state, "off"));
    struct net_port *p = ok ? port_by_name(name) : NULL;
    if (p)
        net_port_set_link(p, str_eq(state, "on"));
    else
        str_printf(out, ok ? "Error: Device '%s' not found\n" : "Error: write set_link NAME on|off\n", name);
}
static const struct hmp_cmd hmp_link = { .name = "set_link", .aliases = "", .args = "NAME on|off", .doc = "plugs a network cable in or out",
    .co_run = hmp_set_link };
HMP_CMD(&hmp_link);

/* Types that exist elsewhere. */
#define ABSENT(type, why) OBJ_ABSENT(type, &netdev_class, why)
ABSENT("vhost-user", "packets in another process' hands; write stream or tap instead");
ABSENT("vhost-vdpa", "vDPA devices");
ABSENT("l2tpv3", "L2TPv3 tunnels; write dgram or tap instead");
ABSENT("vde", "VDE switches; write stream or tap instead");
ABSENT("netmap", "netmap; write tap instead");
ABSENT("af-xdp", "AF_XDP sockets; write tap instead");
ABSENT("passt", "a passt of its own; start passt, and write stream,addr.type=unix,addr.path=SOCKET");

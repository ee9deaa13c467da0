/* SPDX-License-Identifier: MIT */
/* virtio-serial: the multiport protocol, flow control both ways, hot plug, saved state, guests that do wrong. */
#include "virtio_drv.h"
#include <errno.h>
#include <pthread.h>
#include "base/log.h"
#include "chardev/chr_int.h"
#include "core/cmd.h"
#include "hw/virtio/virtio_serial.h"

enum { RX0, TX0, CRX, CTX, RX1, TX1, QUEUES };

/* ---- a back end under the test's control ---- */

struct chr_probe { struct chr chr; struct str got; size_t room; };
static ssize_t probe_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_probe *p = (struct chr_probe *)c;
    if (!p->room)
        return -EAGAIN;
    n = MIN(n, p->room);
    p->room -= n;
    str_addn(&p->got, buf, n);
    return (ssize_t)n;
}
static bool probe_open(struct chr *c, struct err *e) { return true; }
static void probe_close(struct chr *c) { str_free(&((struct chr_probe *)c)->got); }
static void (*unlinked)(void);           /* when the port's link is on its way out */
static void probe_unlinked(struct chr *c, struct chr_link *l)
{
    if (unlinked)
        unlinked();
}
static const struct chr_class probe_class = {
    .obj = { .name = "chardev-probe", .desc = "Test", .base = &chr_class, .size = sizeof(struct chr_probe) },
    .open = probe_open, .close = probe_close, .write = probe_write, .link_removed = probe_unlinked,
};
OBJ_CLASS(&probe_class.obj);

static struct chr_probe *probe(const char *id)
{
    struct err e = ERR_INIT;
    json_t *o = json_object();
    struct obj *c = obj_create(&probe_class.obj, id, o, NULL, &e);
    json_decref(o);
    assert_non_null(c);
    ((struct chr_probe *)c)->room = SIZE_MAX;
    return (struct chr_probe *)c;
}

static void probe_set_room(struct chr_probe *p, size_t n)
{
    p->room = n;
    chr_tx_ready(&p->chr);
    vd_run();
}

static void probe_say(struct chr_probe *p, const char *text)
{
    assert_true(chr_rx_room(&p->chr) >= strlen(text));
    chr_rx(&p->chr, (const uint8_t *)text, strlen(text));
    vd_run();
}

static void remove_obj(struct obj *o)
{
    struct err e = ERR_INIT;
    if (!obj_user_delete(o, &e))
        fail_msg("%s", e.msg);
}

/* ---- events ---- */

static char last_event[256];
static unsigned n_events;
static void on_event(const char *name, json_t *data)
{
    char *s = json_dumps(data, JSON_COMPACT | JSON_SORT_KEYS);
    snprintf(last_event, sizeof last_event, "%s %s", name, s);
    n_events++;
    free(s);
    json_decref(data);
}

/* ---- a machine with a console and a port ---- */

static struct chr_probe *con, *port;
static struct dev *ctrl, *con_dev, *port_dev;

static void machine(void)
{
    vd_open();
    con = probe("con");
    port = probe("port");
    chr_set_open(&con->chr, true);
    ctrl = vd_dev("{'driver':'virtio-serial-device','id':'vs','max_ports':4}");
    con_dev = vd_dev("{'driver':'virtconsole','chardev':'con'}");
    port_dev = vd_dev("{'driver':'virtserialport','chardev':'port','id':'p1','name':'org.test.1'}");
    qmp_event_sink = on_event;
    n_events = 0;
    last_event[0] = '\0';
}

static void machine_end(void)
{
    vd_close();
    remove_obj(&con->chr.obj);
    remove_obj(&port->chr.obj);
    qmp_event_sink = NULL;
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control c = { id, event, value };
    vd_send(CTX, &c, sizeof c);
    assert_int_equal(vd_used(CTX), 0);
}

static uint64_t ctl_buf[8];
static unsigned ctl_given, ctl_taken;

static void give_control_buffers(unsigned n)
{
    while (n--)
        ctl_buf[ctl_given++ % 8] = vd_offer(CRX, 64);
}

/* The next control message as text, "none" if there is none. */
static const char *told(void)
{
    static char text[128];
    int64_t n = vd_used(CRX);
    if (n < 0)
        return "none";
    struct virtio_console_control *c = (struct virtio_console_control *)vd_host(ctl_buf[ctl_taken++ % 8]);
    snprintf(text, sizeof text, "%u:%u=%u%s%.*s", c->id, c->event, c->value, n > 8 ? " " : "", (int)n - 8, (char *)(c + 1));
    return text;
}

static void guest(void)
{
    ctl_given = ctl_taken = 0;
    vd_start(BIT64(VIRTIO_CONSOLE_F_MULTIPORT), QUEUES);
    give_control_buffers(8);
    control(UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
}

/* The guest takes up both ports and opens the second. */
static void guest_open(void)
{
    guest();
    assert_string_equal(told(), "0:1=1");
    assert_string_equal(told(), "1:1=1");
    control(0, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_string_equal(told(), "0:4=1");
    assert_string_equal(told(), "0:6=1");
    control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_string_equal(told(), "1:7=1 org.test.1");
    assert_string_equal(told(), "none");        /* the far end is not there */
    control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    give_control_buffers(5);
}

static void test_protocol(void **state)
{
    machine();
    assert_true(vd_features() & BIT64(VIRTIO_CONSOLE_F_MULTIPORT));
    assert_int_equal(r32(0x104), 4);            /* max_nr_ports */
    assert_false(chr_front_open(&port->chr));
    guest_open();
    assert_string_equal(last_event, "VSERPORT_CHANGE {\"id\":\"p1\",\"open\":true}");
    assert_int_equal(n_events, 1);              /* a console has none */
    assert_true(chr_front_open(&port->chr));
    chr_set_open(&port->chr, true);
    vd_run();
    assert_string_equal(told(), "1:6=1");
    chr_set_open(&port->chr, false);
    vd_run();
    assert_string_equal(told(), "1:6=0");
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
    assert_string_equal(last_event, "VSERPORT_CHANGE {\"id\":\"p1\",\"open\":false}");
    assert_false(chr_front_open(&port->chr));
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    w32(0x70, 0);                               /* a reset closes what was open */
    assert_string_equal(last_event, "VSERPORT_CHANGE {\"id\":\"p1\",\"open\":false}");
    machine_end();
}

/* Without control buffers the present state is told later, not each step of its history. */
static void test_control_without_buffers(void **state)
{
    machine();
    ctl_given = ctl_taken = 0;
    vd_start(BIT64(VIRTIO_CONSOLE_F_MULTIPORT), QUEUES);
    control(UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_string_equal(told(), "none");
    give_control_buffers(1);
    assert_string_equal(told(), "0:1=1");
    assert_string_equal(told(), "none");
    give_control_buffers(1);
    assert_string_equal(told(), "1:1=1");
    control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    for (int i = 0; i < 101; i++) {
        chr_set_open(&port->chr, !port->chr.open);
        vd_run();
    }
    give_control_buffers(6);
    assert_string_equal(told(), "1:7=1 org.test.1");
    assert_string_equal(told(), "1:6=1");
    assert_string_equal(told(), "none");
    machine_end();
}

static void test_bytes_both_ways(void **state)
{
    machine();
    guest_open();
    chr_set_open(&port->chr, true);
    vd_run();
    vd_send(TX0, "console", 7);
    assert_int_equal(vd_used(TX0), 0);
    vd_send(TX1, "port", 4);
    assert_int_equal(vd_used(TX1), 0);
    assert_string_equal(con->got.s, "console");
    assert_string_equal(port->got.s, "port");
    uint64_t a = vd_offer(RX1, 3), b = vd_offer(RX1, 100);
    probe_say(port, "hello, guest");
    assert_int_equal(vd_used(RX1), 3);
    assert_memory_equal(vd_host(a), "hel", 3);
    assert_int_equal(vd_used(RX1), 9);
    assert_memory_equal(vd_host(b), "lo, guest", 9);
    assert_int_equal(vd_used(RX0), -1);
    probe_say(con, "typed");                    /* the guest has no buffer: it waits */
    a = vd_offer(RX0, 64);
    assert_int_equal(vd_used(RX0), 5);
    assert_memory_equal(vd_host(a), "typed", 5);
    machine_end();
}

/* A guest that does not hold the port gets nothing, and nothing is lost. */
static void test_closed_port_reads_nothing(void **state)
{
    machine();
    guest_open();
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
    chr_set_open(&port->chr, true);
    uint64_t a = vd_offer(RX1, 64);
    probe_say(port, "early");
    assert_int_equal(vd_used(RX1), -1);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    vd_run();
    assert_int_equal(vd_used(RX1), 5);
    assert_memory_equal(vd_host(a), "early", 5);
    machine_end();
}

/* Sends until the back end's queue is full and a buffer waits; returns the bytes sent. */
static size_t fill(struct str *sent, uint32_t chunk)
{
    uint64_t a = vd_alloc(chunk);
    do {
        struct vd_buf b = { a, chunk, false };
        for (uint32_t k = 0; k < chunk; k++)
            vd_host(a)[k] = (uint8_t)(sent->len + k * 7 + (k >> 8));
        str_addn(sent, vd_host(a), chunk);
        vd_add(TX1, &b, 1);
        vd_kick(TX1);
    } while (vd_used(TX1) == 0 && sent->len < 1000000);
    return sent->len;
}

static void test_full_back_end_holds_the_buffer(void **state)
{
    struct str sent = { 0 };
    machine();
    guest_open();
    chr_set_open(&port->chr, true);
    port->room = 1000;
    fill(&sent, 40000);                         /* more than the link holds */
    assert_int_equal(port->got.len, 1000);
    assert_int_equal(vd_used(TX1), -1);
    probe_set_room(port, 5000);
    assert_int_equal(port->got.len, 6000);
    assert_int_equal(vd_used(TX1), -1);         /* still full */
    probe_set_room(port, SIZE_MAX);
    assert_int_equal(vd_used(TX1), 0);
    assert_int_equal(port->got.len, sent.len);
    assert_memory_equal(port->got.s, sent.s, sent.len);
    vd_send(TX1, "more", 4);
    assert_int_equal(vd_used(TX1), 0);
    assert_memory_equal(port->got.s + sent.len, "more", 4);
    str_free(&sent);
    machine_end();
}

static void test_reset_with_a_held_buffer(void **state)
{
    struct str sent = { 0 };
    machine();
    guest_open();
    chr_set_open(&port->chr, true);
    port->room = 0;
    fill(&sent, 40000);
    w32(0x70, 0);
    vd_run();
    assert_int_equal(r32(0x70), 0);             /* nothing is in flight any more */
    probe_set_room(port, SIZE_MAX);
    assert_true(port->got.len < sent.len && !memcmp(port->got.s, sent.s, port->got.len));
    chr_set_open(&port->chr, false);
    vd_run();
    guest_open();
    chr_set_open(&port->chr, true);
    vd_run();
    vd_send(TX1, "again", 5);
    assert_int_equal(vd_used(TX1), 0);
    assert_memory_equal(port->got.s + port->got.len - 5, "again", 5);
    str_free(&sent);
    machine_end();
}

/* The far end goes: what waits for it comes back to the guest, which may go on. */
static void test_far_end_goes_with_a_held_buffer(void **state)
{
    struct str sent = { 0 };
    machine();
    guest_open();
    chr_set_open(&port->chr, true);
    port->room = 0;
    fill(&sent, 40000);
    chr_set_open(&port->chr, false);
    vd_run();
    assert_int_equal(vd_used(TX1), 0);
    vd_send(TX1, "void", 4);
    assert_int_equal(vd_used(TX1), 0);
    str_free(&sent);
    machine_end();
}

static void test_held_buffer_in_saved_state(void **state)
{
    struct str sent = { 0 }, saved = { 0 }, again = { 0 };
    machine();
    guest_open();
    chr_set_open(&port->chr, true);
    port->room = 0;
    fill(&sent, 40000);
    vd_save(ctrl, &saved);
    vd_load(ctrl, &saved);
    vd_save(ctrl, &again);
    assert_int_equal(saved.len, again.len);
    assert_memory_equal(saved.s, again.s, saved.len);
    run_cont();
    vd_run();
    probe_set_room(port, SIZE_MAX);
    assert_int_equal(vd_used(TX1), 0);
    assert_int_equal(vd_used(TX1), -1);
    assert_int_equal(port->got.len, sent.len);
    assert_memory_equal(port->got.s, sent.s, sent.len);
    vd_send(TX1, "on", 2);
    assert_int_equal(vd_used(TX1), 0);
    run_stop(RUN_PAUSED);
    str_free(&sent);
    str_free(&saved);
    str_free(&again);
    machine_end();
}

static void test_ports_come_and_go(void **state)
{
    struct err e = ERR_INIT;
    machine();
    guest_open();
    struct chr_probe *late = probe("late");
    vd_hot = true;
    struct dev *d = vd_dev("{'driver':'virtserialport','id':'p2','chardev':'late','nr':3,'name':'x'}");
    vd_run();
    assert_string_equal(told(), "3:1=1");
    control(3, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_string_equal(told(), "3:7=1 x");
    control(3, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_true(chr_front_open(&late->chr));
    assert_true(dev_unplug_request(d, &e));
    vd_run();
    assert_null(obj_find("device", "p2"));
    assert_string_equal(told(), "3:2=1");
    control(3, VIRTIO_CONSOLE_PORT_OPEN, 1);    /* late words about it are harmless */
    assert_false(vd_needs_reset());
    remove_obj(&late->chr.obj);
    machine_end();
}

static void refused(const char *opts, const char *msg)
{
    struct err e = ERR_INIT;
    assert_null(vd_try(opts, &e));
    assert_string_equal(e.msg, msg);
}

static void test_numbers_of_ports(void **state)
{
    machine();
    refused("{'driver':'virtserialport','nr':4}", "nr=4: bus 'vs.0' has ports 0 to 3");
    refused("{'driver':'virtserialport','nr':0}", "nr=0: the first port is for a virtconsole");
    refused("{'driver':'virtserialport','nr':1}", "port 1 of bus 'vs.0' is taken by 'p1'");
    refused("{'driver':'virtserialport','chardev':'port'}", "chardev 'port' is already used by p1");
    vd_dev("{'driver':'virtserialport','id':'p2'}");
    vd_dev("{'driver':'virtconsole','id':'p3'}");
    refused("{'driver':'virtserialport','bus':'vs.0'}", "bus 'vs.0' has no free port for 'virtserialport'");
    char *path = dev_path(port_dev);
    assert_string_equal(path, "virtio-mmio-bus.0/virtio/virtio-serial/1");
    free(path);
    machine_end();
}

/* A driver without the multiport protocol has the console and nothing else. */
static void test_one_port_drivers(void **state)
{
    machine();
    vd_start(0, 2);
    vd_send(TX0, "plain", 5);
    assert_int_equal(vd_used(TX0), 0);
    assert_string_equal(con->got.s, "plain");
    uint64_t a = vd_offer(RX0, 16);
    probe_say(con, "key");
    assert_int_equal(vd_used(RX0), 3);
    assert_memory_equal(vd_host(a), "key", 3);
    machine_end();
}

static void test_emergency_write(void **state)
{
    machine();
    assert_true(vd_features() & BIT64(VIRTIO_CONSOLE_F_EMERG_WRITE));
    w32(0x108, '!');                            /* before any driver */
    vd_run();
    assert_string_equal(con->got.s, "!");
    assert_int_equal(r32(0x108), 0);
    w32(0x104, 99);
    assert_int_equal(r32(0x104), 4);            /* the rest is read-only */
    machine_end();
    vd_open();
    vd_dev("{'driver':'virtio-serial-device','max_ports':1,'emergency-write':false}");
    assert_false(vd_features() & 7);
    w32(0x30, 2);
    assert_int_equal(r32(0x34), 0);             /* two queues */
    vd_close();
}

static void *print_beside(void *arg)
{
    w32(0x108, '!');
    return NULL;
}

static void print_on_a_hart(void)
{
    const struct virtio_serial *s = (struct virtio_serial *)virtio_of_dev(ctrl);
    pthread_t hart;
    assert_int_equal(pthread_create(&hart, NULL, print_beside, NULL), 0);
    pthread_join(hart, NULL);
    assert_null(s->slots[0].port);
}

/* A hart prints while the console's link goes: there is no console for it any more. */
static void test_emergency_write_while_unplugging(void **state)
{
    struct err e = ERR_INIT;
    machine();
    guest_open();
    vd_hot = true;
    unlinked = print_on_a_hart;
    assert_true(dev_unplug_request(con_dev, &e));
    vd_run();
    unlinked = NULL;
    assert_int_equal(con->got.len, 0);
    machine_end();
}

static void test_wrong_guests(void **state)
{
    uint64_t before;
    machine();
    guest_open();
    before = log_guest_total();
    control(1000, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(2, VIRTIO_CONSOLE_PORT_READY, 1);   /* a number without a port */
    control(1, 77, 1);
    control(1, VIRTIO_CONSOLE_PORT_READY, 0);
    vd_send(CTX, "short", 5);
    assert_int_equal(vd_used(CTX), 0);
    vd_offer(RX1, 0);
    chr_set_open(&port->chr, true);
    probe_say(port, "x");
    assert_int_equal(vd_used(RX1), 0);
    assert_int_equal(log_guest_total() - before, 6);
    assert_false(vd_needs_reset());
    uint64_t a = vd_offer(RX1, 8);              /* and it goes on */
    assert_int_equal(vd_used(RX1), 1);
    assert_int_equal(*vd_host(a), 'x');
    struct vd_buf bad = { 0x1000, 64, false };
    vd_add(TX1, &bad, 1);
    vd_kick(TX1);
    assert_true(vd_needs_reset());
    machine_end();
}

/* Random control messages, buffers and far ends: the device answers every buffer or holds it, and a reset heals all. */
static void test_random_guests(void **state)
{
    machine();
    for (int round = 0; round < 40; round++) {
        vd_start(round % 4 ? BIT64(VIRTIO_CONSOLE_F_MULTIPORT) : 0, QUEUES);
        for (int i = 0; i < 60 && vd_pool < HW_RAM + HW_RAM_SIZE - 8192; i++) {
            struct virtio_console_control c = { hw_rand(5), (uint16_t)hw_rand(9), (uint16_t)hw_rand(3) };
            unsigned q = hw_rand(QUEUES);
            port->room = hw_rand(2) ? SIZE_MAX : 0;
            chr_tx_ready(&port->chr);
            if (!hw_rand(8))
                chr_set_open(&port->chr, hw_rand(2));
            if (q == CTX)
                vd_send(CTX, &c, hw_rand(9));
            else if (q % 2)
                vd_send(q, "0123456789", hw_rand(10));
            else
                vd_offer(q, hw_rand(20));
            if (chr_rx_room(&port->chr) > 4)
                chr_rx(&port->chr, (const uint8_t *)"abcd", hw_rand(5));
        }
        w32(0x70, 0);
        vd_run();
        assert_int_equal(r32(0x70), 0);
    }
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol), cmocka_unit_test(test_control_without_buffers), cmocka_unit_test(test_bytes_both_ways),
        cmocka_unit_test(test_closed_port_reads_nothing), cmocka_unit_test(test_full_back_end_holds_the_buffer),
        cmocka_unit_test(test_reset_with_a_held_buffer), cmocka_unit_test(test_far_end_goes_with_a_held_buffer),
        cmocka_unit_test(test_held_buffer_in_saved_state), cmocka_unit_test(test_ports_come_and_go),
        cmocka_unit_test(test_numbers_of_ports), cmocka_unit_test(test_one_port_drivers), cmocka_unit_test(test_emergency_write),
        cmocka_unit_test(test_emergency_write_while_unplugging),
        cmocka_unit_test(test_wrong_guests), cmocka_unit_test(test_random_guests),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}

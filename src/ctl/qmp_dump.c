/* SPDX-License-Identifier: MIT */
/*
 * dump-guest-memory: guest RAM and the registers of the harts as an ELF core (System V ABI, chapters 4 and 5; NT_PRSTATUS as 64-bit
 * Linux has it), which gdb and crash read. A segment's addresses are physical ones. Main loop.
 */
#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/fdset.h"
#include "core/cmd.h"
#include "core/debug.h"
#include "core/run.h"
#include "ctl/hmp.h"
#include "ctl/qmp_memory.h"
#include "loop/co.h"
#include "mem/view.h"

enum { CHUNK = 1 << 20, FILE_MODE = 0600 /* it holds the guest's secrets */ };

enum { FORMAT_ELF };
static const char *const formats[] = { "elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp", NULL };

struct dump_args { bool paging, detach; char *protocol; int64_t begin, length; int format; };
static const struct prop dump_props[] = {
    { .name = "paging", .doc = "Segments at virtual addresses; off is in this build", .type = PROP_T_BOOL, .flags = PF_REQUIRED, PROP_OFF(struct dump_args, paging) },
    PROP_STR(struct dump_args, protocol, "protocol", PF_REQUIRED, "Where to: file:PATH, or fd:NAME of a descriptor that was handed over"),
    PROP_BOOL(struct dump_args, detach, "detach", false, "Answer at once; DUMP_COMPLETED tells the end"),
    PROP_S64(struct dump_args, begin, "begin", -1, -1, INT64_MAX, "First physical address; with length"),
    PROP_S64(struct dump_args, length, "length", -1, -1, INT64_MAX, "How many bytes of physical addresses; with begin"),
    PROP_ENUM(struct dump_args, format, "format", formats, FORMAT_ELF, "Format; elf is in this build"),
    PROP_END };

/* Guest physical, of RAM. */
struct piece { uint64_t at, size; };

enum dump_status { DUMP_NONE, DUMP_ACTIVE, DUMP_COMPLETED, DUMP_FAILED };
static const char *const status_names[] = { "none", "active", "completed", "failed", NULL };

/* The latest. */
static struct dump {
    enum dump_status status;
    uint64_t completed, total;
    int fd;
    struct piece *pieces;
    size_t n;
    struct err err;
} dump;

/* ---- what is in it ---- */

/* RAM between @begin and @end. */
static void find_pieces(uint64_t begin, uint64_t end)
{
    rcu_read_lock();
    const struct view *v = view_get(&as_memory);
    dump.pieces = xcalloc(v->n + 1, sizeof *dump.pieces);
    dump.n = 0;
    dump.total = dump.completed = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct view_range *r = &v->r[i];
        uint64_t from = MAX(r->start, begin), to = MIN(r->start + r->size, end);
        if (!r->host || !r->writable || from >= to)
            continue;
        struct piece *last = dump.n ? &dump.pieces[dump.n - 1] : NULL;
        if (last && last->at + last->size == from)
            last->size += to - from;
        else
            dump.pieces[dump.n++] = (struct piece){ from, to - from };
        dump.total += to - from;
    }
    rcu_read_unlock();
}

/* A note with struct elf_prstatus of 64-bit Linux, up to its registers. What the host is, little endian, the guest is too. */
struct note {
    Elf64_Nhdr head;
    char name[8];
    uint8_t signal[32];
    uint32_t pid, ppid, pgrp, sid;
    uint8_t times[64];
} __attribute__((packed));
enum { STATUS_AT = offsetof(struct note, signal), FPVALID = 8 };
static_assert(STATUS_AT == 20 && sizeof(struct note) == STATUS_AT + 112, "NT_PRSTATUS");

static size_t note_size(void) { return sizeof(struct note) + 8 * debug_ops->n_user_regs + FPVALID; }

/* Into zeroed memory. */
static void put_note(uint8_t *to, unsigned cpu)
{
    struct note n = { .head = { sizeof "CORE", (Elf64_Word)(note_size() - STATUS_AT), NT_PRSTATUS }, .name = "CORE", .pid = cpu + 1 };
    memcpy(to, &n, sizeof n);
    for (unsigned i = 0; i < debug_ops->n_user_regs; i++) {
        uint8_t raw[32] = { 0 };
        debug_ops->reg_read(cpu, debug_ops->user_regs[i], raw);
        memcpy(to + sizeof n + 8 * i, raw, 8);
    }
}

/* ---- the file ---- */

/* ELF header, program headers, notes. New, *@size bytes. */
static uint8_t *make_head(size_t *size)
{
    unsigned cpus = debug_ops ? debug_ops->n_cpus() : 0;
    size_t notes_at = sizeof(Elf64_Ehdr) + (1 + dump.n) * sizeof(Elf64_Phdr), notes = cpus ? cpus * note_size() : 0;
    uint64_t at = *size = notes_at + notes;
    uint8_t *head = xcalloc(1, *size);
    Elf64_Ehdr h = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, .e_type = ET_CORE, .e_machine = debug_ops ? debug_ops->elf_machine : EM_NONE,
                     .e_version = EV_CURRENT, .e_phoff = sizeof h, .e_ehsize = sizeof h, .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = (uint16_t)(1 + dump.n) };
    Elf64_Phdr note = { .p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes, .p_memsz = notes };
    memcpy(head, &h, sizeof h);
    memcpy(head + sizeof h, &note, sizeof note);
    for (size_t i = 0; i < dump.n; at += dump.pieces[i++].size) {
        const struct piece *p = &dump.pieces[i];
        Elf64_Phdr load = { .p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = at, .p_vaddr = p->at, .p_paddr = p->at, .p_filesz = p->size,
                            .p_memsz = p->size };
        memcpy(head + sizeof h + (1 + i) * sizeof load, &load, sizeof load);
    }
    for (unsigned i = 0; i < cpus; i++)
        put_note(head + notes_at + i * note_size(), i);
    return head;
}

static int co_write_piece(const struct piece *p, uint8_t *buf)
{
    for (uint64_t done = 0, n; done < p->size; done += n, dump.completed += n) {
        n = MIN(p->size - done, (uint64_t)CHUNK);
        bool whole = as_read_bytes(&as_memory, p->at + done, buf, n);
        (void)whole;                    /* unplugged in between: zero */
        int r = co_write_whole(dump.fd, buf, n);
        if (r)
            return r;
    }
    return 0;
}

static int co_write_file(void)
{
    size_t size;
    uint8_t *head = make_head(&size), *buf = xcalloc(1, CHUNK);
    int r = co_write_whole(dump.fd, head, size);
    for (size_t i = 0; i < dump.n && !r; i++)
        r = co_write_piece(&dump.pieces[i], buf);
    free(head);
    free(buf);
    return r;
}

/* ---- commands ---- */

static json_t *dump_state(void)
{
    return json_pack("{s:s, s:I, s:I}", "status", status_names[dump.status], "completed", (json_int_t)dump.completed, "total", (json_int_t)dump.total);
}

/* The machine stands while it is written. */
static void co_dump(void *arg)
{
    bool ran = run_is_running();
    if (ran)
        run_stop(RUN_PAUSED);
    dump.err = (struct err)ERR_INIT;
    int r = co_write_file();
    if (close(dump.fd) && !r)
        r = -errno;
    if (r)
        err_os(&dump.err, -r, "cannot write the core");
    dump.status = r ? DUMP_FAILED : DUMP_COMPLETED;
    free(dump.pieces);
    dump.pieces = NULL;
    if (ran && run_state_get() == RUN_PAUSED)
        run_cont();
    json_t *data = json_pack("{s:o}", "result", dump_state());
    if (r)
        json_object_set_new(data, "error", json_string(dump.err.msg));
    qmp_event("DUMP_COMPLETED", data);
}

static bool check(const struct dump_args *a, struct err *e)
{
    if (a->paging) {
        err_set(e, ERR_NOT_BUILT, "paging=true is not in this build");
        return err_hint(e, "with paging=false gdb and crash follow the guest's page tables themselves");
    }
    if (a->format != FORMAT_ELF) {
        err_set(e, ERR_NOT_BUILT, "format=%s is not in this build", formats[a->format]);
        return err_hint(e, "elf is; makedumpfile makes the others of it");
    }
    if ((a->begin < 0) != (a->length < 0))
        return err_set(e, ERR_VALUE, "Parameter '%s' is missing", a->begin < 0 ? "begin" : "length");
    if (dump.status == DUMP_ACTIVE)
        return err_set(e, ERR_STATE, "there is a dump in process, please wait");
    return true;
}

static int open_target(const char *protocol, struct err *e)
{
    if (str_starts(protocol, "fd:"))
        return fd_take(protocol + 3, e);
    if (!str_starts(protocol, "file:")) {
        err_set(e, ERR_VALUE, "protocol=%.100s is neither file:PATH nor fd:NAME", protocol);
        return -1;
    }
    int fd = fdset_open(protocol + 5, O_WRONLY | O_CREAT | O_TRUNC, FILE_MODE);
    if (fd < 0)
        err_os(e, errno, "cannot open '%.150s'", protocol + 5);
    return fd;
}

static json_t *co_dump_guest_memory(void *args, struct err *e)
{
    const struct dump_args *a = args;
    if (!check(a, e))
        return NULL;
    uint64_t begin = a->begin < 0 ? 0 : (uint64_t)a->begin;
    find_pieces(begin, a->begin < 0 ? UINT64_MAX : begin + (uint64_t)a->length);
    if (!dump.n)
        err_set(e, ERR_VALUE, "no RAM is at these addresses");
    if (!dump.n || (dump.fd = open_target(a->protocol, e)) < 0) {
        free(dump.pieces);
        dump.pieces = NULL;
        return NULL;
    }
    dump.status = DUMP_ACTIVE;
    if (a->detach) {
        co_spawn(loop_main(), NULL, co_dump, NULL);
        return json_object();
    }
    co_dump(NULL);
    if (dump.status == DUMP_COMPLETED)
        return json_object();
    *e = dump.err;
    return NULL;
}

static json_t *co_query_dump(void *args, struct err *e) { return dump_state(); }
static json_t *co_query_capability(void *args, struct err *e) { return json_pack("{s:[s]}", "formats", formats[FORMAT_ELF]); }

static const struct qmp_cmd cmds[] = {
    { "dump-guest-memory", "Writes RAM and registers as an ELF core", dump_props, sizeof(struct dump_args), co_dump_guest_memory, .ret = qmp_nothing },
    { "query-dump", "How far the latest dump-guest-memory is", .co_run = co_query_dump, .says = "{status:str, completed:int, total:int}" },
    { "query-dump-guest-memory-capability", "Formats of dump-guest-memory", .co_run = co_query_capability, .says = "{formats:[str]}" },
};
QMP_CMD(&cmds[0]);
QMP_CMD(&cmds[1]);
QMP_CMD(&cmds[2]);

static const struct qmp_event_def event = { "DUMP_COMPLETED", "dump-guest-memory has come to its end",
    .says = "{result:{status:str, completed:int, total:int}, *error:str}" };
QMP_EVENT(&event);

/* ---- the monitor's ---- */

/* Flags in front: true once all are known. */
static bool take_flags(const char **arg, struct dump_args *a, struct str *out)
{
    static const char letters[] = "zlsw";       /* of formats[1] and on */
    for (; **arg == '-'; *arg += strspn(*arg, " ")) {
        char c = (*arg)[1];
        const char *f = c ? strchr(letters, c) : NULL;
        if (!c || !strchr("pdzlsw", c) || ((*arg)[2] && (*arg)[2] != ' ')) {
            str_printf(out, "Error: unknown option '%.*s'\n", (int)strcspn(*arg, " "), *arg);
            return false;
        }
        a->paging |= c == 'p';
        a->detach |= c == 'd';
        if (f)
            a->format = 1 + (int)(f - letters);
        *arg += 2;
    }
    return true;
}

static void run_dump(const char *arg, struct str *out)
{
    struct dump_args a = { .begin = -1, .length = -1, .format = FORMAT_ELF };
    struct err e = ERR_INIT;
    if (!take_flags(&arg, &a, out))
        return;
    char *file = opt_next_word(&arg), *begin = opt_next_word(&arg), *length = opt_next_word(&arg);
    uint64_t from = 0, n = 0;
    if (!file || (begin && (!length || !parse_u64(begin, &from) || !parse_u64(length, &n) || from > INT64_MAX || n > INT64_MAX))) {
        str_add(out, "Error: dump-guest-memory [-p] [-d] [-z|-l|-s|-w] FILE [BEGIN LENGTH]\n");
    } else {
        a.protocol = str_starts(file, "fd:") || str_starts(file, "file:") ? xstrdup(file) : xasprintf("file:%s", file);
        if (begin) {
            a.begin = (int64_t)from;
            a.length = (int64_t)n;
        }
        json_t *done = co_dump_guest_memory(&a, &e);
        if (!done)
            hmp_error(out, &e);
        json_decref(done);
        free(a.protocol);
    }
    free(file);
    free(begin);
    free(length);
}

static void info_dump(const char *arg, struct str *out)
{
    str_printf(out, "Status: %s\n", status_names[dump.status]);
    if (dump.status == DUMP_ACTIVE)
        str_printf(out, "Finished: %.2f %%\n", 100.0 * (double)dump.completed / (double)dump.total);
}

static const struct hmp_cmd rows[] = {
    { "dump-guest-memory", "", "[-p] [-d] FILE [BEGIN LENGTH]", "RAM and registers as an ELF core", run_dump },
    { "info dump", "", "", "how far the latest dump is", info_dump },
};
HMP_CMD(&rows[0]);
HMP_CMD(&rows[1]);

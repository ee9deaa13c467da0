/* SPDX-License-Identifier: MIT */
/* Translation of one block: which instructions belong to it, how it ends, and the code out of line. */
#include "base/log.h"
#include "cpu/riscv/jit_int.h"

static const struct jit_stubs *stubs(const struct jit_tr *t) { return &t->j->stub[t->fp != JIT_FP_SLOW]; }

/* ---- guest registers ---- */

unsigned jit_src(struct jit_tr *t, unsigned r, unsigned tmp)
{
    if (t->now.reg[r] >= 0)
        return (unsigned)t->now.reg[r];
    jit_get(t, tmp, r);
    return tmp;
}

void jit_get(struct jit_tr *t, unsigned host, unsigned r)
{
    if (!r)
        x86_rr(&t->e, X_XOR, false, host, host);
    else if (t->now.reg[r] < 0)
        x86_rm(&t->e, X_MOV, true, host, RBP, JIT_X(r));
    else if ((unsigned)t->now.reg[r] != host)
        x86_rr(&t->e, X_MOV, true, host, (unsigned)t->now.reg[r]);
}

unsigned jit_dst(struct jit_tr *t, unsigned rd, unsigned tmp)
{
    return rd < 32 && t->now.reg[rd] >= 0 ? (unsigned)t->now.reg[rd] : tmp;
}

void jit_put(struct jit_tr *t, unsigned rd, unsigned host)
{
    if (rd >= 32 || !rd)
        return;
    if (t->now.reg[rd] < 0)
        x86_rm(&t->e, X_MOV_TO, true, host, RBP, JIT_X(rd));
    else if ((unsigned)t->now.reg[rd] != host)
        x86_rr(&t->e, X_MOV, true, (unsigned)t->now.reg[rd], host);
}

void jit_op(struct jit_tr *t, unsigned op, bool w, unsigned dst, unsigned r)
{
    if (t->now.reg[r] >= 0)
        x86_rr(&t->e, op, w, dst, (unsigned)t->now.reg[r]);
    else
        x86_rm(&t->e, op, w, dst, RBP, JIT_X(r));       /* x0 is there, too, and 0 */
}

/* ---- out of line ---- */

struct jit_cold *jit_cold(struct jit_tr *t, enum jit_cold_kind kind, uint8_t *from)
{
    struct jit_cold *c = &t->cold[t->n_cold++];
    *c = (struct jit_cold){ .kind = kind, .from = from, .place = (uint8_t)t->at_place };
    return c;
}

/* The record of instruction @i for jit_slow(), as an address. */
static uint32_t site_of(struct jit_tr *t, unsigned i, bool leave)
{
    struct jit_site *s = &t->j->site[t->j->sites++];
    *s = (struct jit_site){ .fn = interp_handler(t->insn[i].in.op), .in = t->insn[i].in, .off = t->insn[i].off, .index = (uint8_t)i, .leave = leave };
    return (uint32_t)(uintptr_t)s;
}

static uint32_t site(struct jit_tr *t, bool leave) { return site_of(t, t->i, leave); }

/* From registers as they are before an instruction to what they are after it. */
static void call_slow(struct jit_tr *t, uint32_t record, const struct jit_place *before)
{
    jit_move(t, before, &t->home);
    x86_mov_imm(&t->e, RAX, record);
    x86_call(&t->e, stubs(t)->slow);
    jit_move(t, &t->home, before + 1);
}

/* The same, one for all places of the instruction. */
static uint32_t slow_site(struct jit_tr *t)
{
    for (unsigned i = t->first_cold; i < t->n_cold; i++)
        if (t->cold[i].kind == COLD_SLOW || (t->cold[i].kind == COLD_FILL && t->cold[i].target < 0))
            return t->cold[i].arg;
    return site(t, false);
}

void jit_cold_slow(struct jit_tr *t, uint8_t *from)
{
    uint32_t s = slow_site(t);
    jit_cold(t, COLD_SLOW, from)->arg = s;
}

void jit_cold_fill(struct jit_tr *t, uint8_t *from, bool store)
{
    bool alone = t->group[t->i];
    uint32_t s = alone ? 0 : slow_site(t);
    struct jit_cold *c = jit_cold(t, COLD_FILL, from);
    c->back = emit_here(&t->e);
    c->variant = store;
    c->arg = s;
    c->target = alone ? t->insn[t->i].off : -1;
    c->done = (int16_t)t->i;
}

void jit_cold_leave(struct jit_tr *t, uint8_t *from)
{
    jit_cold(t, COLD_LEAVE, from)->arg = site(t, true);
}

void jit_cold_unordered(struct jit_tr *t, uint8_t *from)
{
    struct jit_cold *c = jit_cold(t, COLD_UNORDERED, from);
    c->arg = site_of(t, t->i - 1, false);
    c->target = site(t, false);
    c->done = (int16_t)t->i;
}

/* Calls the handler of the present instruction in line. */
static void jit_call_handler(struct jit_tr *t)
{
    call_slow(t, site(t, false), &t->place[2 * t->i]);
}

/* ---- ways out ---- */

static uint32_t find_near(struct jit_tr *t, unsigned off, unsigned variant)
{
    struct jit *j = t->j;
    uint64_t key = jit_key(t->page->pa, off, t->fp, variant);
    if (off == t->insn[0].off && variant == t->variant)
        return t->head;
    for (uint32_t b = j->hash[jit_hash(key)]; b; b = j->block[b].next)
        if (j->block[b].key == key)
            return j->block[b].near;
    return 0;
}

static struct jit_cold *spend(struct jit_tr *t, unsigned done, enum jit_cold_kind poll)
{
    x86_ri(&t->e, G_SUB, false, R15, (int32_t)done);
    struct jit_cold *c = jit_cold(t, poll, x86_jcc(&t->e, CC_LE, 0));
    c->back = emit_here(&t->e);
    return c;
}

void jit_spend_loop(struct jit_tr *t, unsigned k, unsigned off, int adjust)
{
    struct jit_cold *c = spend(t, t->i + 1 - k, COLD_POLL_LOOP);
    c->arg = off;
    c->done = (int16_t)adjust;
}

void jit_jump_forward(struct jit_tr *t, uint8_t *from, unsigned k)
{
    struct jit_cold *c = jit_cold(t, COLD_FORWARD, from);
    c->arg = k;
    c->done = (int16_t)(k - t->i - 1);
}

void jit_jump_back(struct jit_tr *t, unsigned k)
{
    jit_widen(t, k, t->arrive[k].narrow);
    jit_spend_loop(t, k, t->insn[k].off, -(int)k);
    x86_jmp(&t->e, t->at[k]);
}

/* rax = pc; the registers are where all blocks have them. */
static void exit_rax(struct jit_tr *t, unsigned done)
{
    struct emit *e = &t->e;
    uint32_t line = (uint32_t)(uintptr_t)t->j->jump;
    spend(t, done, COLD_POLL_AT);
    x86_rorx(e, false, RCX, RAX, 11);       /* jit_jump_hash(): what comes in above is masked */
    x86_rr(e, X_XOR, false, RCX, RAX);
    x86_ri(e, G_AND, false, RCX, (JIT_JUMP_SIZE - 1) << 1);
    x86_rx(e, X_CMP, true, RAX, RCX, 3, line + offsetof(struct jit_jump, pc));
    x86_jcc(e, CC_NE, stubs(t)->miss);
    x86_rm(e, X_MOV, false, RDX, RBP, JIT_DISP(jit.ctx));
    x86_rx(e, X_CMP, false, RDX, RCX, 3, line + offsetof(struct jit_jump, ctx));
    x86_jcc(e, CC_NE, stubs(t)->miss);
    x86_rx(e, X_MOV, false, RDX, RCX, 3, line + offsetof(struct jit_jump, code));
    x86_jmp_reg(e, RDX);
}

void jit_exit_rax(struct jit_tr *t, unsigned done)
{
    jit_move(t, &t->now, &t->home);
    exit_rax(t, done);
}

/* An instruction across the page's end is reached through the jump cache, like another page. */
static bool same_page(const struct jit_tr *t, int64_t target)
{
    return target >= 0 && target <= (int64_t)RV_PAGE_SIZE - 4;
}

static void exit_to(struct jit_tr *t, const struct jit_place *from, int64_t target, unsigned done, unsigned variant)
{
    jit_move(t, from, &t->home);
    if (!same_page(t, target)) {
        x86_rm(&t->e, X_MOV, true, RAX, RBP, JIT_DISP(jit.vbase));
        if (target)
            x86_ri(&t->e, G_ADD, true, RAX, (int32_t)target);
        exit_rax(t, done);
        return;
    }
    x86_ri(&t->e, G_SUB, false, R15, (int32_t)done);
    uint32_t to = find_near(t, (unsigned)target, variant), jump = emit_here(&t->e);
    uint8_t *at = x86_jcc(&t->e, CC_G, to);
    x86_mov_imm(&t->e, RAX, (uint64_t)target);
    x86_call(&t->e, stubs(t)->poll);
    x86_jmp(&t->e, jump);
    if (!to) {
        struct jit_cold *c = jit_cold(t, COLD_LINK, at);
        c->arg = (uint32_t)target;
        c->variant = (uint8_t)variant;
    }
}

/* Ends the block after instruction i with a jump to @target, relative to the page base. */
static void jit_exit_to(struct jit_tr *t, int64_t target, unsigned done)
{
    exit_to(t, &t->now, target, done, 0);
}

void jit_exit_cold(struct jit_tr *t, uint8_t *from, int64_t target, unsigned done)
{
    struct jit_cold *c = jit_cold(t, COLD_EXIT, from);
    c->target = target;
    c->done = (int16_t)done;
}

void jit_exit_alone(struct jit_tr *t, uint8_t *from)
{
    jit_exit_cold(t, from, t->insn[t->i].off, t->i);
    t->cold[t->n_cold - 1].variant = 1;
}

/* The present instruction ends at @end: there go on those that do what it does out of line. */
static void cold_ends(struct jit_tr *t, uint32_t end)
{
    for (unsigned i = t->first_cold; i < t->n_cold; i++) {
        if (t->cold[i].kind == COLD_SLOW)
            t->cold[i].back = end;
        t->cold[i].end = end;
    }
}

static void emit_cold(struct jit_tr *t, const struct jit_cold *c)
{
    struct emit *e = &t->e;
    const struct jit_place *place = &t->place[c->place];
    x86_patch(e, c->from, emit_here(e));
    switch (c->kind) {
    case COLD_SLOW:
        call_slow(t, c->arg, place);
        x86_jmp(e, c->back);
        break;
    case COLD_LEAVE:
        call_slow(t, c->arg, place);
        break;
    case COLD_POLL_AT:
        x86_call(e, stubs(t)->poll_at);
        x86_jmp(e, c->back);
        break;
    case COLD_POLL_LOOP:
        jit_move(t, place, &t->home);
        x86_rm(e, X_LEA, false, R15, R15, c->done);
        x86_mov_imm(e, RAX, c->arg);
        x86_call(e, stubs(t)->poll);
        x86_rm(e, X_LEA, false, R15, R15, -c->done);
        jit_move(t, &t->home, place);
        x86_jmp(e, c->back);
        break;
    case COLD_SLOT:
        t->i = (unsigned)c->done;
        t->at_place = c->place;
        t->now = *place;
        t->first_cold = t->n_cold;
        jit_slot_miss(t, c);
        cold_ends(t, c->end);
        break;
    case COLD_FILL:
        x86_call(e, stubs(t)->fill[c->variant]);
        x86_jcc(e, CC_E, c->back);
        if (c->target >= 0) {
            exit_to(t, place, c->target, (unsigned)c->done, 1);
            break;
        }
        call_slow(t, c->arg, place);
        x86_jmp(e, c->end);
        break;
    case COLD_NAN:
        jit_fp_nan(t, c);
        break;
    case COLD_UNORDERED:
        call_slow(t, c->arg, &t->place[2 * c->done - 2]);
        jit_move(t, &t->place[2 * c->done - 1], &t->place[2 * c->done]);
        call_slow(t, (uint32_t)c->target, &t->place[2 * c->done]);
        x86_jmp(e, c->end);
        break;
    case COLD_FORWARD:
        if (c->done)
            x86_rm(e, X_LEA, false, R15, R15, c->done);
        jit_move(t, place, &t->arrive[c->arg]);
        x86_jmp(e, t->at[c->arg]);
        break;
    case COLD_LINK: {
        struct jit_link *l = &t->j->link[t->j->links++];
        *l = (struct jit_link){ .at = c->from, .key = jit_key(t->page->pa, c->arg, t->fp, c->variant) };
        x86_mov_imm(e, RAX, (uintptr_t)l);
        x86_jmp(e, stubs(t)->exit);
        break;
    }
    case COLD_EXIT:
        exit_to(t, place, c->target, (unsigned)c->done, c->variant);
        break;
    }
}

/* ---- which instructions ---- */

static unsigned fetch16(struct jit_tr *t, unsigned off)
{
    unsigned line = off >> 6;
    t->lines |= BIT64(line);
    if (!(t->page->lines >> line & 1)) {
        rv_code_copy(t->page->bytes + line * 64, t->host + line * 64, 64);
        t->page->lines |= BIT64(line);
    }
    return ld_le16(t->page->bytes + off);
}

/* Whether nothing can follow the instruction in its block. */
static bool ends_block(const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_JALR: case RV_OP_ECALL: case RV_OP_EBREAK: case RV_OP_SRET: case RV_OP_MRET: case RV_OP_WFI: case RV_OP_FENCE_I:
    case RV_OP_ILLEGAL: case RV_OP_SFENCE_VMA: case RV_OP_SINVAL_VMA: case RV_OP_WRS_NTO: case RV_OP_WRS_STO:
        return true;
    default:
        return false;
    }
}

/* Whether a branch of the block goes to @off. */
static bool wanted(const struct jit_tr *t, int64_t off)
{
    for (unsigned i = 0; i < t->n; i++)
        if (rv_insn_rows[t->insn[i].in.op].fmt == RV_FMT_B && jit_side(t, i) == off)
            return true;
    return false;
}

/* The block can go on at page offset @target. */
static bool follows(const struct jit_tr *t, int64_t target)
{
    return same_page(t, target) && (!(target & 3) || rv_has(t->h, RV_EXT_C));
}

/*
 * Follows the guest's code from @off: over branches forward and back into the block, through direct jumps within the page, and
 * along branches back to what is not in the block: a loop that was entered in its middle.
 */
static void collect(struct jit_tr *t, unsigned off)
{
    bool went_back = false;
    while (t->n < jit_options.insns && off <= RV_PAGE_SIZE - 2 && !(went_back && jit_find_insn(t, off) >= 0)) {
        uint32_t raw = fetch16(t, off);
        if (rv_insn_len(raw) == 4) {
            if (off == RV_PAGE_SIZE - 2)
                return;
            raw |= fetch16(t, off + 2) << 16;
        }
        struct rv_insn *in = &t->insn[t->n].in;
        interp_prepare(t->h, raw, in);
        if (t->n && t->j->check && !jit_checkable(t->h, in))
            return;
        t->insn[t->n++].off = (uint16_t)off;
        int64_t target = (int64_t)off + in->imm;
        bool branch = rv_insn_rows[in->op].fmt == RV_FMT_B;
        bool back = branch && in->imm <= 0 && (t->variant || jit_find_insn(t, target) < 0);
        t->stops = ends_block(in);
        if (t->stops || (back && (t->variant || !follows(t, target))))
            return;
        off += in->len;
        if (back) {
            t->turned[t->n - 1] = went_back = true;
            off = (unsigned)target;
        }
        if (in->op != RV_OP_JAL)
            continue;
        if (!follows(t, target))
            return;
        if (jit_find_insn(t, target) < 0) {
            went_back = went_back || target < (int64_t)off;
            off = (unsigned)target;
        } else if (in->rd != 32 || t->variant || !wanted(t, off)) {
            return;
        }
    }
}

static void emit_insn(struct jit_tr *t)
{
    const struct rv_insn *in = &t->insn[t->i].in;
    t->first_cold = t->n_cold;
    if (t->label[t->i]) {                               /* other ways lead here */
        t->fp_now = t->fp_at[t->i];
        jit_widen(t, t->i, t->words_at[t->i]);
        t->arrive[t->i] = t->now;
        if (t->from[t->i] < 0)
            x86_align(&t->e, 32);                       /* a loop */
    }
    t->at[t->i] = emit_here(&t->e);
    t->at_place = 2 * t->i;
    t->place[2 * t->i] = t->place[2 * t->i + 1] = t->now;
    if (t->skip[t->i])
        return;
    jit_place_insn(t);
    if (!jit_emit_int(t, in) && !jit_emit_mem(t, in) && !jit_emit_fp(t, in) && !jit_emit_amo(t, in) && !jit_emit_sys(t, in))
        jit_call_handler(t);
    jit_fp_learn(t, t->i, &t->fp_now);
    cold_ends(t, emit_here(&t->e));
}

static uint32_t new_block(struct jit_tr *t)
{
    struct jit *j = t->j;
    uint32_t n = j->blocks++;
    struct jit_block *b = &j->block[n];
    b->checks = 0;
    b->key = jit_key(t->page->pa, t->insn[0].off, t->fp, t->variant);
    b->page_next = t->page->blocks;
    t->page->blocks = n;
    b->next = j->hash[jit_hash(b->key)];
    j->hash[jit_hash(b->key)] = n;
    return n;
}

/* Who still comes to a dropped block at this place is sent on. */
static void replace_stale(struct jit_tr *t, uint32_t n)
{
    struct jit_block *b = t->j->block;
    for (uint32_t *at = &t->page->stale; *at;) {
        uint32_t old = *at;
        if (b[old].key == b[n].key) {
            *at = b[old].page_next;
            jit_block_forward(t->j, old, n);
        } else {
            at = &b[old].page_next;
        }
    }
}

uint32_t jit_translate(struct jit *j, struct jit_page *p, const uint8_t *host, unsigned off, unsigned fp, unsigned variant)
{
    struct jit_tr *t = &j->tr;
    memset(t, 0, offsetof(struct jit_tr, insn));
    t->j = j;
    t->h = j->h;
    t->page = p;
    t->host = host;
    t->fp = fp;
    t->variant = variant;
    t->e = (struct emit){ .p = j->w + j->used, .run_delta = j->x - j->w };
    collect(t, off);
    for (unsigned i = 0; i < t->n && log_on(LOG_IN_ASM); i++)
        rv_log_insn(&t->insn[i].in, (j->h->pc & RV_PAGE_MASK) + t->insn[i].off);
    jit_plan_jumps(t);
    jit_optimize(t);
    if (!variant) {
        jit_plan_shares(t);
        jit_plan_slots(t);
    }
    jit_plan_fp(t);
    jit_plan_registers(t);
    uint32_t n = new_block(t), far = emit_here(&t->e);
    if (off)
        x86_ri(&t->e, G_SUB, true, RAX, (int32_t)off);
    x86_rm(&t->e, X_MOV_TO, true, RAX, RBP, JIT_DISP(jit.vbase));
    t->head = emit_here(&t->e);
    j->block[n].far = far;
    j->block[n].near = t->head;
    j->block[n].lines = t->lines;
    j->block[n].insns = (uint8_t)t->n;
    replace_stale(t, n);
    jit_move(t, &t->home, &t->now);
    jit_fp_assume(t);
    for (t->i = 0; t->i < t->n; t->i++)
        emit_insn(t);
    t->i = t->n - 1;
    t->at_place = 2 * t->i + 1;
    if (t->close >= 0)
        jit_jump_back(t, (unsigned)t->close);
    else if (!t->ended)
        jit_exit_to(t, jit_next(t, t->i), t->n);
    for (unsigned i = 0; i < t->n_cold; i++)
        emit_cold(t, &t->cold[i]);
    j->n.blocks++;
    j->n.insns += t->n;
    j->n.bytes += (uint64_t)(t->e.p - (j->w + j->used));
    jit_perf_block(j, n, far, (size_t)(t->e.p - (j->w + j->used)));
    j->used = align_up((size_t)(t->e.p - j->w), 16);
    return n;
}

/* SPDX-License-Identifier: MIT */
/* What the tab key offers in the monitor: commands, subjects, and what the command's row says that its argument is. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "core/dev.h"
#include "core/user_obj.h"

struct offer { const char *text; size_t word; struct lineedit_words *w; };

static void offer(const struct offer *o, const char *candidate) { lineedit_offer(o->w, o->text, o->word, candidate); }

/* "info" itself, or its subjects. */
static void offer_commands(const struct offer *o, bool subjects)
{
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c) {
        bool is_subject = str_starts(c->name, "info ");
        if (is_subject == subjects && !c->absent)
            offer(o, c->name + (is_subject ? 5 : 0));
    }
}

static bool offer_id(struct obj *x, void *arg)
{
    const struct offer *o = arg;
    if (x->id[0] != '#')
        offer(o, x->id);
    return true;
}

static void offer_ids(const struct offer *o, const char *ns)
{
    struct obj *all = obj_container(ns), *x;
    list_for_each(x, &all->children, sibling)
        offer_id(x, (void *)o);
}

static bool creatable(const struct obj_class *c, bool device)
{
    return device ? obj_class_is(c, &dev_obj_class) && obj_class_shown(c) : user_object_class(c);
}

/* "TYPE" first, then "option=". */
static void offer_type(const struct offer *o, const char *arg, bool device)
{
    size_t n = strcspn(arg, ",");
    o->w->open = true;
    if (!arg[n]) {
        for (const struct obj_class *const *c = obj_class_list(NULL, false); *c; c++)
            if (creatable(*c, device))
                offer(o, (*c)->name);
        return;
    }
    char *type = xstrndup(arg, n), *option;
    const struct obj_class *c = obj_class_find(type);
    struct prop p;
    free(type);
    if (!c || !creatable(c, device) || o->text[strlen(o->text) - o->word - 1] == '=')
        return;
    offer(o, "id=");
    if (device)
        offer(o, "bus=");
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
        option = xasprintf("%s=", p.name);
        offer(o, option);
        free(option);
    }
}

void hmp_complete(const char *text, size_t word, struct lineedit_words *w)
{
    struct offer o = { text, word, w };
    char name[64];
    const char *arg, *start = text + strspn(text, " ");
    if (!strchr(start, ' ')) {
        offer_commands(&o, false);
        return;
    }
    if (str_starts(start, "info ") && !strchr(start + 5 + strspn(start + 5, " "), ' ')) {
        offer_commands(&o, true);
        return;
    }
    const struct hmp_cmd *c = hmp_cmd_split(start, name, &arg);
    if (!c || !c->completes)
        return;
    if (!strcmp(c->completes, "command"))
        offer_commands(&o, str_starts(arg, "info "));
    else if (c->completes[0] == '+')
        offer_type(&o, arg, !strcmp(c->completes, "+device"));
    else
        offer_ids(&o, c->completes);
}

/* SPDX-License-Identifier: MIT */
/* iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN as options of the iscsi driver, and back. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"

#define SCHEME "iscsi://"

/* ":" and the like may be written as they are or in hexadecimal; names of targets (RFC 7143, 4.2.7) have no "%" of their own. */
static void unescape(char *s)
{
    char *out = s;
    for (; *s; s++) {
        char hex[3] = { s[0] == '%' ? s[1] : 0, s[0] == '%' && s[1] ? s[2] : 0, 0 };
        if (isxdigit((unsigned char)hex[0]) && isxdigit((unsigned char)hex[1])) {
            *out++ = (char)strtol(hex, NULL, 16);
            s += 2;
        } else {
            *out++ = *s;
        }
    }
    *out = 0;
}

static bool parse(char *rest, json_t *o)
{
    char *target = strchr(rest, '/'), *lun = target ? strchr(target + 1, '/') : NULL, *at;
    if (!lun || !lun[1] || lun[1 + strspn(lun + 1, "0123456789")] || strlen(lun + 1) > 9)
        return false;
    *target++ = 0;
    *lun++ = 0;
    at = strrchr(rest, '@');
    if (at) {
        char *pass = strchr(rest, '%');
        *at = 0;
        if (pass && pass < at) {
            *pass++ = 0;
            json_object_set_new(o, "password", json_string(pass));
        }
        json_object_set_new(o, "user", json_string(rest));
        rest = at + 1;
    }
    unescape(target);
    json_object_set_new(o, "portal", json_string(rest));
    json_object_set_new(o, "target", json_string(target));
    json_object_set_new(o, "lun", json_integer(atoi(lun)));
    return *rest && *target;
}

json_t *blk_iscsi_url_opts(const char *name, struct err *e)
{
    char *rest = str_starts(name, SCHEME) ? xstrdup(name + strlen(SCHEME)) : NULL;
    json_t *o = json_pack("{s:s, s:s}", "driver", "iscsi", "transport", "tcp");
    bool ok = rest && parse(rest, o);
    free(rest);
    if (ok)
        return o;
    json_decref(o);
    err_set(e, ERR_VALUE, "this is not the address of an iSCSI disk");      /* not its text: there may be a password */
    err_hint(e, "iscsi://[USER[%%PASSWORD]@]HOST[:PORT]/TARGET/LUN");
    return NULL;
}

char *blk_iscsi_url(const char *portal, const char *target, unsigned lun)
{
    struct str u = { 0 };
    str_printf(&u, SCHEME "%s/", portal);
    for (const char *p = target; *p; p++)
        str_printf(&u, isalnum((unsigned char)*p) || strchr("-._:", *p) ? "%c" : "%%%02X", (unsigned char)*p);
    str_printf(&u, "/%u", lun);
    return u.s;
}

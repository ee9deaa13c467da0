/* SPDX-License-Identifier: MIT */
/* Text of others (peers, images, people) on its way to a terminal or a log. */
#ifndef BASE_HARMLESS_H
#define BASE_HARMLESS_H

/* Control characters become '?': ASCII's, and those that UTF-8 has from 0x80 to 0x9f (ECMA-48, 5.3), by which terminals are led, too. ANY */
static inline void text_harmless(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p; p++) {
        if (*p < ' ' || *p == 0x7f)
            *p = '?';
        else if (p[0] == 0xc2 && (p[1] & 0xe0) == 0x80)
            p[0] = p[1] = '?';
    }
}

#endif

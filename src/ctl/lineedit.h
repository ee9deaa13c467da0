/* SPDX-License-Identifier: MIT */
/*
 * A line editor for terminals: bytes as they were typed in, echo out, whole lines to a callback. Moving about, history and
 * completion use only printable bytes, backspace and carriage control, so that any terminal will do. Main loop.
 */
#ifndef CTL_LINEEDIT_H
#define CTL_LINEEDIT_H

#include "base/str.h"

#define LINEEDIT_MAX 4096u          /* bytes of a line, with the final zero */
#define LINEEDIT_HISTORY 64u

struct lineedit_words { char **v; size_t n; bool open; /* more of the same word may follow */ };

struct lineedit {
    /* The owner's; @out gets echo, @line a finished line. */
    void (*out)(void *arg, const char *s, size_t n);
    void (*line)(void *arg, const char *line);
    /* Adds what the word that ends @text (its length is @word) could become. May be NULL. */
    void (*complete)(void *arg, const char *text, size_t word, struct lineedit_words *w);
    void *arg;
    const char *prompt;
    /* private */
    char buf[LINEEDIT_MAX], esc[8];
    size_t len, pos, esc_len;
    bool after_cr, tabbed;
    char *history[LINEEDIT_HISTORY];
    size_t n_history, at;           /* @at == @n_history: the line that is being typed */
    char *typed;                    /* it, while an older one is shown */
};

void lineedit_key(struct lineedit *l, uint8_t c);
/* Shows the prompt with an empty line. */
void lineedit_start(struct lineedit *l);
/* Adds a candidate if it begins with the last @word bytes of @text. */
void lineedit_offer(struct lineedit_words *w, const char *text, size_t word, const char *candidate);
/* Forgets line and history. */
void lineedit_free(struct lineedit *l);

#endif

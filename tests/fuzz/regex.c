/* PATTERN NUL TEXT: compiling and matching end quickly, and the table of states, when it is
 * filled, emptied and filled again, never changes an answer. */
#include "model/regex.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    slice_t pattern = slice(data, nul != NULL ? (size_t)(nul - data) : size);
    slice_t text = slice_skip(slice(data, size), pattern.n + 1);
    struct regex *re = NULL, *fresh = NULL;
    char why[96];
    bool first;

    if (regex_new(pattern, &re, why) != OK) {
        BUG_ON(why[0] == '\0');
        return 0;
    }
    first = regex_matches(re, text);
    for (size_t cut = 0; cut < text.n && cut < 64; cut++)
        (void)regex_matches(re, slice_skip(text, cut)); /* fills the table with other states */
    BUG_ON(regex_matches(re, text) != first);
    BUG_ON(regex_new(pattern, &fresh, why) != OK);
    BUG_ON(regex_matches(fresh, text) != first);
    regex_free(&fresh);
    regex_free(&re);
    return 0;
}

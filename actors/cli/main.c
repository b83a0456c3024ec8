/* weft: the command for people.
 *
 * FOR       starting and ending an embedded mesh, running programs in it, changing and seeing
 * it. ASKS      weft-broker over broker.sock for everything that changes something; the
 * databases, read-only, for everything that is seen; /proc and the run directory for the
 * processes of this machine. HOLDS     nothing between two calls; what it makes on the machine
 * is named or recorded so that `weft down` finds it after a crash half-way. NEEDS     root for
 * up, down, run and redirect; to be allowed by broker.sock (root or the broker's own uid) for
 * the rest. IF IT DIES   up: the next `weft up` or `weft down` tidies. run: the pod and the
 * program die with it, and the next `weft run` or `weft down` removes the namespace. IF SLOW it
 * waits for an answer for 10 s (apply --wait: as long as asked), then ends with exit code 3.
 */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const struct command *c;

    if (argc < 2) {
        command_print_all(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        command_print_all(stdout);
        return CLI_OK;
    }
    c = command_find(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    if (c == NULL) {
        fprintf(stderr, "weft: there is no command %s\n", argv[1]);
        command_print_all(stderr);
        return CLI_USAGE;
    }
    return c->run(c, argc - 1, argv + 1);
}

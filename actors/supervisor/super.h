/* The supervisor's run. */
#ifndef SUPERVISOR_SUPER_H
#define SUPERVISOR_SUPER_H

/* `weft-supervisor pod|control`. Returns the exit code: 0 after a drain, 1 when the start failed (the log
 * says why), 64 for a bad setting or command line. */
int supervisor_main(int argc, char **argv);

#endif

/* weft-supervisor: starts, watches, drains and restarts the processes of a pod or of a control plane.
 *
 * usage: weft-supervisor pod | control
 *
 * ANSWERS   the lifelines of its children (kit/lifeline.h) and signals: SIGTERM and SIGINT drain in the
 *           order of tbl/processes.h within WEFT_DRAIN_TIMEOUT, a second one kills; SIGHUP makes all
 *           children reload. Writes RUN_DIR/status (status.h) at every change.
 * HOLDS     the listening sockets, the counters' memory of each proxy worker and the vault of weft-tls,
 *           handed to every generation of a child (heritage.h). A lock on its run directory.
 * NEEDS     the executables beside its own (or in WEFT_BIN_DIR); root only if ports below 1024 are asked
 *           for or WEFT_UID names another user. It parses nothing that comes from a network, and uses
 *           no ZeroMQ, whose assertions would end the pod.
 * IF IT DIES  all children die with it (PR_SET_PDEATHSIG, and end of file on the lifeline): who started
 *           it starts it again. As PID 1 of a container it reaps orphans.
 * IF SLOW   nothing of the data plane waits for it; a child that dies is restarted later.
 */
#include "supervisor/super.h"

int main(int argc, char **argv)
{
    return supervisor_main(argc, argv);
}

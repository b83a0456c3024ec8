/* The line between a process and its supervisor: a SOCK_SEQPACKET pair inherited as a file descriptor.
 *
 * One message is one line of text, e.g. "ready", "drain 120000", "log debug", "alive". It is not ZeroMQ
 * on purpose: the supervisor is PID 1 of the pod and must survive what makes libzmq abort (see
 * docs/decisions.md). End of file means that the other side is gone: a child then exits at once, so that
 * children never outlive their supervisor.
 *
 *   child -> supervisor   ready                serving; sent once
 *                         alive                every 2 s; 10 s of silence and the child is restarted
 *                         drained              nothing left to do; exits by itself next
 *                         note KEY VALUE       shown in the status file (e.g. "note certificate 2026-…")
 *   supervisor -> child   drain MS             finish what is running within MS, take nothing new
 *                         reload               read changed files again
 *                         log LEVEL
 *                         process NAME PID RESTARTS STATE   to telemetry only: the pod's processes
 */
#ifndef KIT_LIFELINE_H
#define KIT_LIFELINE_H

#define LIFELINE_ENV      "WEFT_LIFELINE_FD"
#define LIFELINE_MAX      256
#define LIFELINE_ALIVE_MS 2000
#define LIFELINE_LOST_MS  10000

#endif

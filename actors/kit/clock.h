/* Time is read once per turn of the loop and can be set by a test.
 *
 * Monotonic time (for every timer, age and deadline) in milliseconds and microseconds since an arbitrary
 * start; wall time (for people and certificates) in milliseconds since 1970 UTC.
 */
#ifndef KIT_CLOCK_H
#define KIT_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ms(void);  /* monotonic, of this turn */
uint64_t clock_now_us(void);  /* monotonic, of this turn */
uint64_t clock_wall_ms(void); /* wall, of this turn */

uint64_t clock_read_us(void); /* monotonic, read now (vDSO call): for latencies within a turn */

/* Reads both clocks now; what clock_now_* say until the next turn or tick. A test may call it too. */
void clock_tick(void);

/* Called by the actor's loop before each turn: the time of the coming turn is read when it is first
 * asked for, so a turn costs one reading at most. Before the first call (a program without the actor's
 * loop) each clock_now_* reads the clock. */
void clock_turn(void);

/* From now on time is what the test says: both clocks move by clock_test_advance only. */
void clock_test_freeze(uint64_t mono_ms, uint64_t wall_ms);
void clock_test_advance(uint64_t ms);
void clock_test_thaw(void);

#endif

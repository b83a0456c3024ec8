/* The two clocks of a process.
 *
 *   LIVE    every question reads the clock (no loop of ours is running)      start state
 *   TURN    a reading holds until clock_turn() says that a new turn begins   clock_turn, clock_tick
 *   FROZEN  time is what the test says                                       clock_test_freeze
 *
 * TURN is lazy because a turn of the loop begins inside libevent, behind epoll_wait, where nobody can
 * call us (libevent 2.1 has no hook there): clock_turn() before the wait marks the reading as old, and
 * the first callback that asks reads it. Turns that never ask cost nothing.
 */
#include "kit/clock.h"

#include "kit/attr.h"

#include <stdbool.h>
#include <time.h>

static struct {
    enum { CLOCK_LIVE, CLOCK_TURN, CLOCK_FROZEN } mode;
    bool mono_is_old, wall_is_old;
    uint64_t mono_us, wall_ms;
} now = {CLOCK_LIVE, true, true, 0, 0};

static uint64_t read_us(clockid_t which)
{
    struct timespec ts;

    (void)clock_gettime(which, &ts); /* cannot fail for these clocks */
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t clock_now_us(void)
{
    if (now.mono_is_old) {
        now.mono_us = read_us(CLOCK_MONOTONIC);
        now.mono_is_old = now.mode == CLOCK_LIVE;
    }
    return now.mono_us;
}

uint64_t clock_now_ms(void)
{
    return clock_now_us() / 1000;
}

uint64_t clock_wall_ms(void)
{
    if (now.wall_is_old) {
        now.wall_ms = read_us(CLOCK_REALTIME) / 1000;
        now.wall_is_old = now.mode == CLOCK_LIVE;
    }
    return now.wall_ms;
}

uint64_t clock_read_us(void)
{
    return now.mode == CLOCK_FROZEN ? now.mono_us : read_us(CLOCK_MONOTONIC);
}

void clock_tick(void)
{
    if (now.mode == CLOCK_FROZEN)
        return;
    now.mono_us = read_us(CLOCK_MONOTONIC);
    now.wall_ms = read_us(CLOCK_REALTIME) / 1000;
    if (now.mode == CLOCK_TURN)
        now.mono_is_old = now.wall_is_old = false;
}

void clock_turn(void)
{
    if (now.mode == CLOCK_FROZEN)
        return;
    now.mode = CLOCK_TURN;
    now.mono_is_old = now.wall_is_old = true;
}

void clock_test_freeze(uint64_t mono_ms, uint64_t wall_ms)
{
    now.mode = CLOCK_FROZEN;
    now.mono_is_old = now.wall_is_old = false;
    now.mono_us = mono_ms * 1000;
    now.wall_ms = wall_ms;
}

void clock_test_advance(uint64_t ms)
{
    now.mono_us += ms * 1000;
    now.wall_ms += ms;
}

void clock_test_thaw(void)
{
    now.mode = CLOCK_LIVE;
    now.mono_is_old = now.wall_is_old = true;
}

#include "pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

namespace modernbert {
namespace {

constexpr int LOOKS_BEFORE_YIELDING = 2000;
constexpr int LOOKS_BEFORE_SLEEPING = 2200;
constexpr int MOST_THREADS = 1024;
constexpr int32_t OPEN = 1 << 30;  // in Pool::inside, beside the number of helpers

struct Pool {
    std::mutex line;
    std::atomic<int32_t> round{0};
    std::atomic<int32_t> inside{0};
    Job job = nullptr;
    void *what = nullptr;
    int num_threads = 1;  // that the job may have
    int num_started = 1;  // the caller among them
    float *scratch = nullptr;
    int64_t scratch_floats = 0;
};

// Never destroyed: its threads wait on it until the process ends.
Pool *pool = new Pool;

// A child has none of its parent's threads, and its locks as they were: it begins with a pool of its own.
void begin_anew() { pool = new Pool; }

void help(Pool *mine, int thread, int32_t seen) {
    for (;;) {
        wait_while(mine->round, seen);
        seen = mine->round.load(std::memory_order_acquire);
        if (mine->inside.fetch_add(1, std::memory_order_acq_rel) & OPEN)
            if (thread < mine->num_threads) mine->job(mine->what, thread);
        if (mine->inside.fetch_sub(1, std::memory_order_acq_rel) == 1) mine->inside.notify_all();
    }
}

bool start_threads(int num_threads) {
    static const int registered = pthread_atfork(nullptr, nullptr, begin_anew);
    (void)registered;
    for (; pool->num_started < num_threads; pool->num_started++) {
        try {
            std::thread(help, pool, pool->num_started, pool->round.load()).detach();
        } catch (const std::system_error &) {
            return false;
        }
    }
    return true;
}

}  // namespace

void wait_while(const std::atomic<int32_t> &value, int32_t is) {
    for (int look = 0; value.load(std::memory_order_acquire) == is; look++) {
        if (look < LOOKS_BEFORE_YIELDING)
            _mm_pause();
        else if (look < LOOKS_BEFORE_SLEEPING)
            sched_yield();
        else
            value.wait(is, std::memory_order_acquire);
    }
}

void take_pool() { pool->line.lock(); }
void leave_pool() { pool->line.unlock(); }

bool run_on_threads(int num_threads, Job job, void *what) {
    if (num_threads > MOST_THREADS || !start_threads(num_threads)) return false;
    if (num_threads == 1) {
        job(what, 0);
        return true;
    }
    pool->job = job;
    pool->what = what;
    pool->num_threads = num_threads;
    pool->inside.fetch_or(OPEN, std::memory_order_acq_rel);
    pool->round.fetch_add(1, std::memory_order_acq_rel);
    pool->round.notify_all();
    job(what, 0);
    pool->inside.fetch_and(~OPEN, std::memory_order_acq_rel);
    for (int32_t inside; (inside = pool->inside.load(std::memory_order_acquire)) != 0;)
        wait_while(pool->inside, inside);
    return true;
}

float *scratch_memory(int64_t num_floats) {
    if (pool->scratch_floats >= num_floats) return pool->scratch;
    std::free(pool->scratch);
    const int64_t page = 1 << 21, bytes = (num_floats * 4 + page - 1) / page * page;
    pool->scratch = static_cast<float *>(std::aligned_alloc(page, bytes));
    pool->scratch_floats = pool->scratch ? num_floats : 0;
    return pool->scratch;
}

}  // namespace modernbert

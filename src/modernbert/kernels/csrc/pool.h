// Threads that help with a job: the caller takes part, the others are parked between calls.
//
// A job is a list of phases, each a number of pieces that threads take one by one. Nobody waits for a thread that
// has not come yet, because the machine has other work or it must first be woken: its pieces are done by those who
// are there, and it joins wherever they are.
#pragma once
#include <atomic>
#include <cstdint>

namespace modernbert {

// A look takes about 40 cycles. Phases follow each other within microseconds, and calls within tens of them: to
// sleep and be woken costs more. After that the core belongs to others.
void wait_while(const std::atomic<int32_t> &value, int32_t is);

class Phase {
  public:
    void open(int32_t num_pieces) {
        num_pieces_ = num_pieces;
        next_.store(0, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
    }
    // Do pieces until none is left, then wait for those that others are still at.
    template <typename Work>
    void take_part(Work &&work) {
        if (next_.load(std::memory_order_relaxed) < num_pieces_)
            for (int32_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < num_pieces_;) {
                work(piece);
                if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_pieces_) done_.notify_all();
            }
        for (int32_t done; (done = done_.load(std::memory_order_acquire)) < num_pieces_;) wait_while(done_, done);
    }

  private:
    alignas(64) std::atomic<int32_t> next_{0};
    std::atomic<int32_t> done_{0};
    int32_t num_pieces_ = 0;
};

typedef void (*Job)(void *what, int thread);

// Run `job` on up to this many threads. It must be done when the caller's own run of it is, and a thread may run
// it again when it is done. False where threads cannot be started.
bool run_on_threads(int num_threads, Job job, void *what);

// One caller at a time has the pool and its scratch memory; the others wait in line.
void take_pool();
void leave_pool();

// A block of memory that is kept between jobs, for whoever has the pool: at least this large, 64-byte aligned;
// null where there is none.
float *scratch_memory(int64_t num_floats);

}  // namespace modernbert

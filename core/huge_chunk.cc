#include "core/huge_chunk.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

namespace peregrine::core {
namespace {

#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
// The leak checker looks for pointers in what malloc gave, and in nothing else.
void* map_chunk() { return std::aligned_alloc(kHugeChunkBytes, kHugeChunkBytes); }
void* map_small_chunk() { return map_chunk(); }
void unmap_chunk(void* chunk) { std::free(chunk); }
void* map_pages(size_t bytes) { return std::aligned_alloc(4096, bytes); }
void unmap_pages(void* pages, size_t) { std::free(pages); }
#else
void* map_chunk() {
  void* const mapped =
      mmap(nullptr, 2 * kHugeChunkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  // Twice as much has an aligned half somewhere; what is around it goes back.
  char* const from = static_cast<char*>(mapped);
  const size_t before = -reinterpret_cast<uintptr_t>(from) & (kHugeChunkBytes - 1);
  char* const chunk = from + before;
  if (before != 0) munmap(from, before);
  if (const size_t after = kHugeChunkBytes - before; after != 0) munmap(chunk + kHugeChunkBytes, after);
  return chunk;
}
void ask_for_huge_page(void* chunk) {
  madvise(chunk, kHugeChunkBytes, MADV_HUGEPAGE);  // a hint: refused where there are none
}
// None was ready, and its reader has no milliseconds to give: small pages, as they are touched. The first of them is
// touched before a huge one is asked for, so the kernel keeps to small ones and puts them together when it has time.
void* map_small_chunk() {
  void* const chunk = map_chunk();
  if (chunk == nullptr) return nullptr;
  *static_cast<volatile char*>(chunk) = 0;
  ask_for_huge_page(chunk);
  return chunk;
}
void unmap_chunk(void* chunk) { munmap(chunk, kHugeChunkBytes); }
void* map_pages(size_t bytes) {
  void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return mapped == MAP_FAILED ? nullptr : mapped;
}
void unmap_pages(void* pages, size_t bytes) { munmap(pages, bytes); }
#endif

#if defined(__SANITIZE_ADDRESS__)
void* made_ahead() { return nullptr; }
void drop_made_ahead() {}
#else
// Makes chunks ahead. The kernel clears 2 MiB, and may have to move what others have in the way before: a quarter of a
// millisecond to six, of which a shard's turn has none to give. From the first chunk on there is one too many; more
// while they go fast after one was missing, for the tables of an index grow all at the same time.
class Maker {
 public:
  ~Maker() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    wanted_.notify_one();
    if (thread_.joinable()) thread_.join();
    for (void* chunk : ready_) unmap_chunk(chunk);
  }

  // Null: none is ready.
  void* take() {
    void* chunk = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
      if (ready_.empty()) {
        goal_ = std::clamp<size_t>(2 * goal_, 1, kMost);
      } else {
        chunk = ready_.back();
        ready_.pop_back();
      }
    }
    wanted_.notify_one();
    return chunk;
  }

  // None is made before one is missing again; not while they go fast.
  void drop() {
    std::vector<void*> all;
    {
      const std::lock_guard lock(mutex_);
      if (goal_ > 1) return;
      all.swap(ready_);
      goal_ = 0;
    }
    for (void* chunk : all) unmap_chunk(chunk);
  }

 private:
  static constexpr size_t kMost = 8;
  // Nobody asking for so long is not growing any more.
  static constexpr std::chrono::milliseconds kGrowing{100};

  void run() {
    // Not on the core of the shard that was the first to ask.
    if (cpu_set_t all; sched_getaffinity(getpid(), sizeof(all), &all) == 0) sched_setaffinity(0, sizeof(all), &all);
    pthread_setname_np(pthread_self(), "huge pages");
    std::unique_lock lock(mutex_);
    ready_.reserve(kMost);
    while (!ends_) {
      if (ready_.size() < goal_) {
        lock.unlock();
        void* const chunk = map_chunk();
        if (chunk != nullptr) ask_for_huge_page(chunk);
        for (size_t at = 0; chunk != nullptr && at < kHugeChunkBytes; at += 4096)
          static_cast<volatile char*>(chunk)[at] = 0;
        lock.lock();
        if (chunk == nullptr) goal_ = ready_.size();  // until the next one is missing
        else if (ready_.size() < goal_) ready_.push_back(chunk);
        else unmap_chunk(chunk);
      } else if (goal_ <= 1) {
        wanted_.wait(lock);
      } else if (wanted_.wait_for(lock, kGrowing) == std::cv_status::timeout) {
        for (goal_ = 1; ready_.size() > goal_; ready_.pop_back()) unmap_chunk(ready_.back());
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable wanted_;
  std::thread thread_;
  std::vector<void*> ready_;
  size_t goal_ = 1;
  bool ends_ = false;
};

Maker& maker() {
  static Maker maker;
  return maker;
}
void* made_ahead() { return maker().take(); }
void drop_made_ahead() { maker().drop(); }
#endif

struct Spare {
  void* chunk = nullptr;
  ~Spare() {
    if (chunk != nullptr) unmap_chunk(chunk);
  }
};
thread_local Spare spare;

}  // namespace

void* allocate_huge_chunk() {
  if (spare.chunk != nullptr) return std::exchange(spare.chunk, nullptr);
  void* chunk = made_ahead();
  if (chunk == nullptr) chunk = map_small_chunk();
  if (chunk == nullptr) throw std::bad_alloc();
  return chunk;
}

void free_huge_chunk(void* chunk) {
  if (spare.chunk == nullptr) spare.chunk = chunk;
  else unmap_chunk(chunk);
}

void drop_spare_chunks() {
  if (spare.chunk != nullptr) unmap_chunk(std::exchange(spare.chunk, nullptr));
  drop_made_ahead();
}

void* allocate_chunk(size_t bytes) {
  if (bytes == kHugeChunkBytes) return allocate_huge_chunk();
  void* const chunk = map_pages(bytes);
  if (chunk == nullptr) throw std::bad_alloc();
  return chunk;
}

void free_chunk(void* chunk, size_t bytes) {
  if (bytes == kHugeChunkBytes) free_huge_chunk(chunk);
  else unmap_pages(chunk, bytes);
}

}  // namespace peregrine::core

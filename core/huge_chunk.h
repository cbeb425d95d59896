// Chunks of 2 MiB, aligned to their size, for what may grow to millions: huge pages where the system grants them.
//
// From the system and back to it, not by malloc: an arena keeps what is freed in its middle, and with it a resident
// huge page for each chunk. One freed chunk per thread is kept, so that a subscription coming and going at the edge of
// a chunk does not clear 2 MiB each time; and once there are chunks a thread of its own keeps the next one ready,
// because the first touch of a huge page takes milliseconds when the kernel has to make room for it. Any thread; throws
// std::bad_alloc.
#pragma once

#include <cstddef>

namespace peregrine::core {

inline constexpr size_t kHugeChunkBytes = size_t{2} << 20;

void* allocate_huge_chunk();  // not cleared
void free_huge_chunk(void* chunk);

// What this thread and the one that makes chunks ahead keep for the next one; it comes a little later then.
void drop_spare_chunks();

// The same, or less than that: a multiple of 4096, and aligned to it. The system's, too.
void* allocate_chunk(size_t bytes);
void free_chunk(void* chunk, size_t bytes);

}  // namespace peregrine::core

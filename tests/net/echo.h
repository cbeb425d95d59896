// A session's work in miniature: everything received goes back, whatever the backend does to the sends.
#pragma once

#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/net/checked_backend.h"

namespace peregrine::net::testing {

// Sends everything back, holding at most `limit` bytes per connection by pausing it.
class Echo {
 public:
  explicit Echo(CheckedBackend& server, size_t limit = 1 << 20) : server_(server), limit_(limit) {
    server_.on_event = [this](const Event& event) { on_event(event); };
  }

  std::mt19937_64* cut = nullptr;  // offers random parts as several pieces

 private:
  struct Out {
    std::deque<std::string> chunks;
    size_t bytes = 0;
    bool paused = false;
  };

  void on_event(const Event& event) {
    switch (event.kind) {
      case Event::Kind::kAccepted:
        outs_[event.conn] = Out();
        return;
      case Event::Kind::kData: {
        Out& out = outs_[event.conn];
        out.chunks.emplace_back(event.data, event.size);
        out.bytes += event.size;
        if (out.bytes > limit_ && !out.paused) {
          out.paused = true;
          server_->pause(event.conn);
        }
        break;
      }
      case Event::Kind::kSent:
        if (event.error < 0) return;
        consume(event.conn, event.size);
        break;
      case Event::Kind::kWritable:
        break;
      default:
        return;
    }
    offer(event.conn);
  }

  void consume(ConnId id, size_t bytes) {
    Out& out = outs_[id];
    out.bytes -= bytes;
    while (bytes > 0) {
      const size_t part = std::min(bytes, out.chunks.front().size());
      bytes -= part;
      if (part == out.chunks.front().size()) {
        out.chunks.pop_front();
      } else {
        out.chunks.front().erase(0, part);
      }
    }
    if (out.paused && out.bytes <= limit_ / 2) {
      out.paused = false;
      server_->resume(id);
    }
  }

  void offer(ConnId id) {
    while (!server_.conn(id).sending && !server_.conn(id).failed && outs_[id].bytes > 0) {
      std::vector<iovec> pieces;
      for (std::string& chunk : outs_[id].chunks) {
        size_t at = 0;
        while (at < chunk.size() && pieces.size() < 64) {
          size_t size = chunk.size() - at;
          if (cut != nullptr) size = 1 + (*cut)() % size;
          pieces.push_back({chunk.data() + at, size});
          at += size;
        }
        if (pieces.size() == 64) break;
      }
      const SendResult result = server_.send(id, pieces);
      if (result.status == SendResult::Status::kDone) consume(id, result.bytes);
    }
  }

  CheckedBackend& server_;
  const size_t limit_;
  std::map<ConnId, Out> outs_;
};

}  // namespace peregrine::net::testing

// The wildcard half of the subject index. Private to the sublist; same owner, same thread.
//
// Shape hash: the shape of a pattern is its token count, which of the tokens are literal, and whether it ends in `>`.
// All patterns live in one table keyed by hash(shape, literal tokens); a publish hashes its tokens once, and probes
// once for each live shape that its token count allows. A client can invent shapes at will, so at most kMaxExactShapes
// per token count and kMaxFullShapes ending in `>` are live; further ones, and patterns of more than kMaxShapeTokens
// tokens, go to a trie (compressed: at most two nodes a pattern). Work per match is bounded by those caps, plus in the
// trie by its nodes.
//
// Generations (64-bit, never wrap) say what of a literal subject's match still stands:
//   changed(bucket)  steps whenever a pattern whose first token hashes to `bucket`, or is a wildcard, changes in any
//   way; created(bucket)  only when such a pattern appears: enough for "no pattern matches this literal", which
//   removals leave true.
// Invariant: every live pattern is in exactly one of table and trie.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/sublist_entry.h"
#include "core/sublist_slab.h"
#include "core/sublist_table.h"

namespace peregrine::core {

class PatternTrie {
 public:
  using Ref = EntrySlab::Ref;

  PatternTrie() = default;
  ~PatternTrie();
  PatternTrie(const PatternTrie&) = delete;
  PatternTrie& operator=(const PatternTrie&) = delete;

  bool empty() const { return size_ == 0; }
  Ref find(std::string_view pattern) const;
  void insert(std::string_view pattern, Ref ref);  // not there yet
  void erase(std::string_view pattern);            // there
  // Appends every pattern that `tokens` (none empty) reach.
  void collect(const std::vector<std::string_view>& tokens, std::vector<Ref>& out);
  uint64_t memory_bytes() const { return bytes_; }

  template <class Visit>
  void for_each(Visit&& visit) const {
    std::vector<const Node*> work{&root_};
    while (!work.empty()) {
      const Node* node = work.back();
      work.pop_back();
      if (node->exact != 0) visit(node->exact);
      if (node->rest != 0) visit(node->rest);
      if (node->children == nullptr) continue;
      for (const auto& [token, child] : *node->children) work.push_back(child.get());
    }
  }

 private:
  struct Node;
  // Ordered, not hashed: an attacker cannot make it worse than its logarithm.
  using Children = std::map<std::string, std::unique_ptr<Node>, std::less<>>;
  struct Node {
    std::string label;  // one or more tokens, wildcards `*` included; empty at the root
    Node* parent = nullptr;
    Ref exact = 0;                       // the pattern that ends here
    Ref rest = 0;                        // the pattern that goes on with `>` alone
    std::unique_ptr<Children> children;  // by first token of their label
  };

  Node* descend(std::string_view body, std::string_view& left) const;
  Node* add_child(Node* parent, std::string_view label);
  Node* split(Node* node, size_t size);
  void tidy(Node* node);
  void account(const Node& node, int64_t sign);

  Node root_;
  uint64_t size_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::pair<const Node*, uint32_t>> work_;
};

class PatternIndex {
 public:
  static constexpr uint32_t kMaxShapeTokens = 32;
  static constexpr uint32_t kMaxExactShapes = 32;  // per token count
  static constexpr uint32_t kMaxFullShapes = 32;   // ending in `>`, all token counts together

  PatternIndex(const KeyedHash& hash, EntrySlab& slab);

  uint64_t size() const { return size_; }
  Entry* find(std::string_view pattern) const;
  EntrySlab::Ref find_or_create(std::string_view pattern);  // a new one is zeroed but for text, bucket and `pattern`
  void erase(Entry* entry);                                 // frees it
  void touch(const Entry& entry);                           // its subscribers changed: step `changed`

  // Appends every pattern `subject` reaches.
  void collect(std::string_view subject, std::vector<Entry*>& out);

  uint8_t bucket_of(std::string_view subject) const { return static_cast<uint8_t>(hash_(first_token(subject))); }
  uint64_t changed(uint8_t bucket) const { return changed_[bucket] + changed_wild_; }
  // 0 = cannot be told any more (an Entry has 30 bits for it): such a literal asks the cache instead.
  uint32_t created(uint8_t bucket) const {
    const uint64_t stamp = created_[bucket] + created_wild_ + 1;
    return stamp > Entry::kMaxAlone ? 0 : static_cast<uint32_t>(stamp);
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    table_.for_each([&](const EntrySlot& slot) { visit(*entry_at(slot.ref)); });
    trie_.for_each([&](EntrySlab::Ref ref) { visit(*entry_at(ref)); });
  }
  // One slice from `cursor` (0 at first); returns the next one, 2^32 when all have been visited.
  template <class Visit>
  uint64_t visit_slice(uint64_t cursor, Visit&& visit) const {
    cursor = table_.visit_slice(
        cursor, [&](const EntrySlot& slot) { visit(*entry_at(slot.ref)); },
        [&](const EntrySlot& slot) { __builtin_prefetch(entry_at(slot.ref)); });
    if (cursor == uint64_t{1} << 32) trie_.for_each([&](EntrySlab::Ref ref) { visit(*entry_at(ref)); });
    return cursor;
  }
  uint64_t memory_bytes() const;

 private:
  struct Shape {
    uint64_t seed = 0;
    uint32_t literals = 0;  // bit n: token n is literal
    uint32_t tokens = 0;    // the `>` not counted
    uint32_t patterns = 0;  // live ones of this shape
    bool full = false;      // ends in `>`
    bool same_as(const Shape& other) const {
      return tokens == other.tokens && literals == other.literals && full == other.full;
    }
  };
  // A pattern taken apart.
  struct Parsed {
    Shape shape;
    uint64_t key = 0;
    bool fits = false;  // into kMaxShapeTokens
  };

  Entry* entry_at(EntrySlab::Ref ref) const { return static_cast<Entry*>(slab_.at(ref)); }
  Parsed parse(std::string_view pattern) const;
  std::vector<Shape>& shapes_like(const Shape& shape) {
    return shape.full ? full_shapes_ : exact_shapes_[shape.tokens];
  }
  const std::vector<Shape>& shapes_like(const Shape& shape) const {
    return const_cast<PatternIndex*>(this)->shapes_like(shape);
  }
  uint64_t salt(uint32_t position) const { return (position + 1) * 0x9E3779B97F4A7C15ULL; }
  EntrySlot* find_slot(uint64_t key, std::string_view pattern) const;

  const KeyedHash& hash_;
  EntrySlab& slab_;
  SlotTable<EntrySlot> table_;
  std::array<std::vector<Shape>, kMaxShapeTokens + 1> exact_shapes_;
  std::vector<Shape> full_shapes_;
  uint32_t full_tokens_max_ = 0;  // of the live full shapes
  PatternTrie trie_;
  uint64_t size_ = 0;
  std::array<uint64_t, 256> changed_{};
  std::array<uint32_t, 256> created_{};
  uint64_t changed_wild_ = 0;
  uint64_t created_wild_ = 0;
  std::vector<std::string_view> tokens_;
  std::vector<EntrySlab::Ref> refs_;
};

}  // namespace peregrine::core

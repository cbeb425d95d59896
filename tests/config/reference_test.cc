// config/peregrine.yaml is the documentation of the options. These tests keep it complete and true.
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "config/characters.h"
#include "config/keys.h"
#include "tests/config/world.h"

#ifndef PEREGRINE_REFERENCE
#error "PEREGRINE_REFERENCE is the path of config/peregrine.yaml"
#endif

namespace peregrine::config::test {
namespace {

std::string reference_text() {
  const Sources disk = system_sources();
  const Result<std::string> text = disk.read(PEREGRINE_REFERENCE);
  EXPECT_TRUE(text) << (text ? "" : text.error());
  return text ? *text : "";
}

// Options that stand behind a '#' come alive; explanations ("# ...") stay comments.
std::string uncommented(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t hash = line.find_first_not_of(' ');
    if (hash != std::string::npos && line[hash] == '#' && hash + 1 < line.size() && line[hash + 1] != ' ')
      line.erase(hash, 1);
    out += line + "\n";
  }
  return out;
}

void collect(const Section& section, std::set<const Section*>& sections) {
  if (!sections.insert(&section).second) return;
  for (const Key& key : section.keys) {
    if (key.section != nullptr) collect(*key.section, sections);
  }
}

TEST(Reference, AsItStandsChangesNothing) {
  const LoadedFile loaded = load(reference_text(), "peregrine.yaml");
  EXPECT_EQ(to_text(loaded.errors), "");
  EXPECT_EQ(to_text(loaded.warnings), "");
  EXPECT_EQ(without_origin(loaded.options), Options{}) << "a default in the file is not the default in the code";
}

TEST(Reference, ListsEveryOptionAndNoOther) {
  const Result<Value> tree = tree_of(uncommented(reference_text()), "peregrine.yaml");
  ASSERT_TRUE(tree) << tree.error();
  Binder binder;
  Options options;
  binder.bind(options_section(), &options, *tree);
  EXPECT_EQ(to_text(binder.errors()), "") << "an unknown option, or one with a wrong value";

  const std::set<const Key*> seen(binder.seen().begin(), binder.seen().end());
  std::set<const Section*> sections;
  collect(options_section(), sections);
  for (const Section* section :
       {&cluster_section(), &gateway_section(), &leafnodes_section(), &websocket_section(), &tls_section(),
        &account_section(), &authorization_section(), &leaf_authorization_section(), &simple_authorization_section(),
        &permissions_section(), &mqtt_section(), &jetstream_section()}) {
    collect(*section, sections);
  }
  std::string missing;
  for (const Section* section : sections) {
    for (const Key& key : section->keys) {
      if (seen.count(&key) == 0) missing += section->name + "." + key.names[0] + "\n";
    }
  }
  EXPECT_EQ(missing, "");
}

TEST(Reference, EveryBuiltOptionIsAliveExceptTheAlternatives) {
  const Result<Value> tree = tree_of(reference_text(), "peregrine.yaml");
  ASSERT_TRUE(tree) << tree.error();
  for (const Key& key : options_section().keys) {
    const bool alive = tree->find(key.names[0]) != nullptr;
    // listen, http and https are other spellings of host and port; a block that is present means something even when it
    // is empty.
    const bool alternative =
        key.names[0] == "listen" || key.names[0] == "http" || key.names[0] == "https" || key.section != nullptr;
    EXPECT_EQ(alive, key.built && !alternative) << key.names[0];
  }
}

TEST(Table, DefaultsAreTheOnesInOptions) {
  for (const Key& key : options_section().keys) {
    if (!key.built || key.fallback.empty() || key.section != nullptr) continue;
    const bool quoted = key.type == "string";
    const std::string text = key.names[0] + ": " + (quoted ? "'" + key.fallback + "'" : key.fallback) + "\n";
    const LoadedFile loaded = load(text, "x.yaml");
    EXPECT_EQ(to_text(loaded.errors), "") << text;
    Options options = without_origin(loaded.options);
    EXPECT_EQ(options, Options{}) << text;
  }
}

TEST(Table, NamesAreUniqueAndRowsSayWhatTheyAre) {
  std::set<const Section*> sections;
  collect(options_section(), sections);
  collect(account_section(), sections);
  for (const Section* section : sections) {
    std::set<std::string> names;
    for (const Key& key : section->keys) {
      EXPECT_FALSE(key.type.empty()) << section->name << "." << key.names[0];
      EXPECT_TRUE(static_cast<bool>(key.bind)) << section->name << "." << key.names[0];
      for (const std::string& name : key.names) {
        EXPECT_TRUE(names.insert(name).second) << section->name << "." << name;
        EXPECT_EQ(name, to_lower(name)) << "keys are looked up in lower case";
      }
    }
  }
  for (const Key& key : options_section().keys) EXPECT_TRUE(!key.doc.empty() || !key.built) << key.names[0];
}

TEST(Nearest, FindsTypos) {
  const std::vector<std::string_view> known = {"port", "host", "max_payload", "max_pending"};
  EXPECT_EQ(nearest("prot", known), "port");
  EXPECT_EQ(nearest("maxpayload", known), "max_payload");
  EXPECT_EQ(nearest("max_pendign", known), "max_pending");
  EXPECT_EQ(nearest("elephant", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), known), "");
}

}  // namespace
}  // namespace peregrine::config::test

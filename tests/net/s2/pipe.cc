// Standard input -> standard output, through our encoder or decoder; for run.py, which holds both against the library
// that nats-server uses.
//   s2_pipe encode LEVEL FLUSH     LEVEL: uncompressed fast better best mixed; FLUSH: bytes a flush
//   s2_pipe decode PIECE           fed PIECE bytes at a time (0: all at once); exit 1 and the error's text if it is bad
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "net/s2/decoder.h"
#include "net/s2/encoder.h"

using namespace peregrine::net::s2;

namespace {

std::string read_all() {
  std::string bytes;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0;) bytes.append(buffer, n);
  return bytes;
}

int encode(const std::string& level, size_t flush) {
  const std::string input = read_all();
  Encoder encoder;
  EncoderStream stream;
  constexpr const char* kNames[] = {"uncompressed", "fast", "better", "best"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (level == kNames[i]) stream.level = static_cast<Level>(i);
  std::vector<char> out;
  size_t turn = 0;
  for (size_t at = 0; at < input.size(); at += flush, ++turn) {
    if (level == "mixed") stream.level = static_cast<Level>(turn % 4);
    const std::string_view bytes = std::string_view(input).substr(at, flush);
    out.resize(Encoder::max_encoded(bytes.size()));
    // In uneven pieces, as an outbox holds them.
    std::vector<iovec> pieces;
    for (size_t from = 0, size = 1; from < bytes.size(); from += size, size = size * 3 % 20011 + 1)
      pieces.push_back({const_cast<char*>(bytes.data()) + from, std::min(size, bytes.size() - from)});
    const size_t written =
        turn % 2 == 0 ? encoder.encode(stream, pieces, out.data()) : encoder.encode(stream, bytes, out.data());
    std::fwrite(out.data(), 1, written, stdout);
  }
  return 0;
}

int decode(size_t piece) {
  const std::string input = read_all();
  if (piece == 0) piece = input.size();
  Decoder decoder;
  std::string_view out;
  for (size_t at = 0; at < input.size(); at += piece) {
    std::string_view in = std::string_view(input).substr(at, piece);
    DecodeStatus status;
    while ((status = decoder.next(in, out)) == DecodeStatus::kBytes) std::fwrite(out.data(), 1, out.size(), stdout);
    if (status == DecodeStatus::kError) {
      std::fprintf(stderr, "%s\n", std::string(error_text(decoder.error())).c_str());
      return 1;
    }
  }
  if (!decoder.at_boundary()) std::fprintf(stderr, "ends inside a chunk\n");
  return decoder.at_boundary() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "encode") return encode(argv[2], std::strtoul(argv[3], nullptr, 10));
  if (argc == 3 && std::string_view(argv[1]) == "decode") return decode(std::strtoul(argv[2], nullptr, 10));
  std::fprintf(stderr, "s2_pipe encode LEVEL FLUSH | decode PIECE\n");
  return 2;
}

// Standard input -> standard output, through the library nats-server uses, set as nats-server sets it.
//
//	s2-reference encode LEVEL FLUSH [BLOCK]   LEVEL: uncompressed fast better best default snappy padded; one stream a flush
//	s2-reference decode                       exit 1 and the library's words if it is bad
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/s2"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	fail(err)
	return n
}

func options(level string) []s2.WriterOption {
	opts := []s2.WriterOption{s2.WriterConcurrency(1)}
	switch level {
	case "uncompressed":
		return append(opts, s2.WriterUncompressed())
	case "fast":
		return opts
	case "better":
		return append(opts, s2.WriterBetterCompression())
	case "best":
		return append(opts, s2.WriterBestCompression())
	case "default": // what nats-server has for a level it does not know: as many goroutines as cores
		return nil
	case "snappy":
		return append(opts, s2.WriterSnappyCompat())
	case "padded":
		return append(opts, s2.WriterPadding(4096), s2.WriterAddIndex())
	}
	fail(fmt.Errorf("no level %q", level))
	return nil
}

func main() {
	input, err := io.ReadAll(os.Stdin)
	fail(err)
	switch os.Args[1] {
	case "encode":
		opts := options(os.Args[2])
		flush := number(os.Args[3])
		if len(os.Args) > 4 {
			opts = append(opts, s2.WriterBlockSize(number(os.Args[4])))
		}
		writer := s2.NewWriter(nil, opts...)
		for len(input) > 0 {
			n := min(flush, len(input))
			var out bytes.Buffer
			writer.Reset(&out)
			_, err := writer.Write(input[:n])
			fail(err)
			fail(writer.Close())
			_, err = os.Stdout.Write(out.Bytes())
			fail(err)
			input = input[n:]
		}
	case "decode":
		_, err := io.Copy(os.Stdout, s2.NewReader(bytes.NewReader(input)))
		fail(err)
	}
}

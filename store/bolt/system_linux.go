package bolt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate adds room to the end of a file. Where the file system cannot
// promise it the file is only made longer.
func allocate(f *os.File, from, n int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, from, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(from + n)
	}
	return err
}

// dropCache makes the next read of a file come from the disk.
func dropCache(f *os.File) {
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

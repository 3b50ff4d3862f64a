package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// refuseVolatile refuses a data folder that a reboot empties (tmpfs, ramfs):
// mail accepted there would be lost. CASEGATE_ALLOW_VOLATILE=1 lifts it.
func refuseVolatile(dir string, environ []string) error {
	if slices.Contains(environ, "CASEGATE_ALLOW_VOLATILE=1") {
		return nil
	}
	kind, err := volatile(dir)
	if err != nil {
		return fmt.Errorf("looking at data_dir %q: %w", dir, err)
	}
	if kind == "" {
		return nil
	}
	return problems{{path: "data_dir", what: fmt.Sprintf("%q is on a %s, which a reboot empties", dir, kind),
		hint: "set data_dir to a folder on a disk, or CASEGATE_ALLOW_VOLATILE=1 for a trial"}}
}

// volatile names the file system of a folder (or of the nearest one above that
// exists) if it lives in memory.
func volatile(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	var fsys syscall.Statfs_t
	for {
		err := syscall.Statfs(dir, &fsys)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		dir = filepath.Dir(dir)
	}
	switch uint32(fsys.Type) {
	case 0x01021994:
		return "tmpfs", nil
	case 0x858458f6:
		return "ramfs", nil
	}
	return "", nil
}

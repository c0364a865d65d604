package webhook

import (
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
)

// ParseFile reads the configuration file at path, which it names in errors.
// See [Parse].
func ParseFile(path string) (*Config, error) {
	cfg, _, err := parseFile(path, readFile)
	return cfg, err
}

// parseFile is ParseFile, and returns the files that were read, or will be to
// make connections, also with an error. Read is how the configuration is read.
func parseFile(path string, read func(path string, limit int64) ([]byte, error)) (*Config, []string, error) {
	src, err := read(path, maxConfigFile)
	if err != nil {
		start := hcl.InitialPos
		return nil, []string{path}, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "Unreadable file",
			Detail:   "The configuration file cannot be read: " + reason(err) + ".",
			Subject:  &hcl.Range{Filename: path, Start: start, End: start},
		}}
	}
	cfg, files, err := parse(src, path)
	return cfg, append(files, path), err
}

// Parse reads the text of a configuration file: the webhook sections in it,
// however much else there is. The result has all defaults filled in. Relative
// paths in it are relative to the folder of filename, and are stored joined
// with it.
//
// An error is of type [hcl.Diagnostics]: all problems of the file in the order
// of the text, each with a range in it. No diagnostic carries the value of a
// setting; print them with [WriteDiagnostics].
func Parse(src []byte, filename string) (*Config, error) {
	cfg, _, err := parse(src, filename)
	return cfg, err
}

// parse is Parse, and returns the files that the configuration names.
func parse(src []byte, filename string) (*Config, []string, error) {
	r := newReader(src)
	d := &decoder{src: src, dir: filepath.Dir(filename), sectionKeys: sectionKeys, streamKeys: keysOf(streamSettings)}
	cfg := d.config(r.sections())
	for i := range cfg.Endpoints {
		t := &cfg.Endpoints[i].TLS
		for _, file := range []string{t.CACertFile, t.CertFile, t.KeyFile} {
			if file != "" {
				d.files = append(d.files, file)
			}
		}
	}
	problems := append(r.problems, d.problems...)
	if len(problems) > 0 {
		return nil, d.files, diagnostics(src, filename, problems, r.tainted)
	}
	return cfg, d.files, nil
}

package webhook

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/youmark/pkcs8"
)

// defaultMinTLS is the minimum version where none is set.
const defaultMinTLS = tls.VersionTLS12

// A settingError is a mistake in one setting, by its key in the file. It says
// nothing of the setting's value, not even a path, which may be from env().
type settingError struct {
	key string
	err error
}

func (e *settingError) Error() string { return e.key + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

// clientConfig makes the configuration of connections to host, or says all that
// is wrong.
func (t TLS) clientConfig(host string) (cfg *tls.Config, problems []*settingError) {
	cfg = baseTLSConfig(host)
	if t.Disabled {
		return cfg, nil
	}
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	}
	if t.MinVersion != 0 {
		cfg.MinVersion = t.MinVersion
	}
	cfg.InsecureSkipVerify = t.InsecureSkipVerify
	if t.CACertFile != "" {
		cfg.RootCAs = x509.NewCertPool()
		if err := addRoots(cfg.RootCAs, t.CACertFile); err != nil {
			problems = append(problems, &settingError{"tls.cacertfile", err})
		}
	}
	if t.CertFile != "" { // and a key beside it, as conflicts has it
		cert, wrong := t.certificate()
		problems = append(problems, wrong...)
		// Sent whatever CAs the server says it wants: a server that names
		// none of ours then says why it refuses, instead of "no certificate".
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return cert, nil
		}
	}
	return cfg, problems
}

// proxyConfig makes the configuration of connections to an https proxy: such a
// proxy may be a public one, or one that the endpoint's CA vouches for.
func (t TLS) proxyConfig(host string) (*tls.Config, error) {
	cfg := baseTLSConfig(host)
	if t.Disabled || t.CACertFile == "" {
		return cfg, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if err := addRoots(roots, t.CACertFile); err != nil {
		return nil, &settingError{"tls.cacertfile", err}
	}
	cfg.RootCAs = roots
	return cfg, nil
}

func baseTLSConfig(host string) *tls.Config {
	return &tls.Config{
		ServerName: host,
		MinVersion: defaultMinTLS,
		NextProtos: []string{"http/1.1"},
		// A reconnect then costs one round trip and no certificates.
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

// sameTLS reports whether connections by both configurations are alike; nil is plain
// TCP.
func sameTLS(a, b *tls.Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ServerName == b.ServerName && a.MinVersion == b.MinVersion && a.InsecureSkipVerify == b.InsecureSkipVerify &&
		(a.RootCAs == nil) == (b.RootCAs == nil) && (a.RootCAs == nil || a.RootCAs.Equal(b.RootCAs)) &&
		slices.EqualFunc(clientChain(a), clientChain(b), bytes.Equal)
}

// clientChain is the client certificate that connections show, which stands for its
// key, too.
func clientChain(cfg *tls.Config) [][]byte {
	if cfg.GetClientCertificate == nil {
		return nil
	}
	cert, err := cfg.GetClientCertificate(nil)
	if err != nil {
		return nil
	}
	return cert.Certificate
}

// addRoots adds the certificates of a file, at least one.
func addRoots(pool *x509.CertPool, file string) error {
	chain, err := readCertificates(file)
	for _, cert := range chain {
		pool.AddCert(cert)
	}
	return err
}

// certificate reads the client certificate and its key, and checks that they
// belong together.
func (t TLS) certificate() (cert *tls.Certificate, problems []*settingError) {
	chain, err := readCertificates(t.CertFile)
	if err != nil {
		problems = append(problems, &settingError{"tls.certfile", err})
	}
	key, err := readKey(t.KeyFile, t.KeyPassword)
	if err != nil {
		problems = append(problems, &settingError{"tls.keyfile", err})
	}
	if len(problems) > 0 {
		return nil, problems
	}
	public, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, []*settingError{{"tls.keyfile", errors.New("its key does not match the first certificate of tls.certfile")}}
	}
	cert = &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// readCertificates reads the certificates of a PEM file, at least one. What
// else is in the file, such as a key, is skipped.
func readCertificates(file string) ([]*x509.Certificate, error) {
	rest, err := readRegular(file, maxConfigFile)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate %d is malformed: %w", len(chain)+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("it has no PEM certificate")
	}
	return chain, nil
}

// readKey reads the first private key of a PEM file: PKCS #8, PKCS #1 or
// SEC 1, encrypted or not.
func readKey(file string, password Secret) (crypto.Signer, error) {
	rest, err := readRegular(file, maxConfigFile)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("it has no PEM private key")
		}
		if !bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")) {
			continue // "EC PARAMETERS" may stand before the key
		}
		key, err := parseKey(block, password)
		if err != nil {
			return nil, fmt.Errorf("its key %w", err)
		}
		return key, nil
	}
}

var (
	errNeedsPassword = errors.New("is encrypted: tls.key_password is missing")
	errWrongPassword = errors.New("cannot be decrypted: tls.key_password is wrong")
)

func parseKey(block *pem.Block, password Secret) (crypto.Signer, error) {
	der := block.Bytes
	var key any
	var err error
	encrypted := block.Type == "ENCRYPTED PRIVATE KEY"
	//lint:ignore SA1019 OpenSSL's old format is weak, but keys in it are in use
	legacy := x509.IsEncryptedPEMBlock(block)
	if (encrypted || legacy) && password == "" {
		return nil, errNeedsPassword
	}
	if legacy {
		//lint:ignore SA1019 see above
		der, err = x509.DecryptPEMBlock(block, []byte(password))
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, errWrongPassword
		} else if err != nil {
			return nil, fmt.Errorf("cannot be decrypted: %w", err)
		}
	}
	switch block.Type {
	case "ENCRYPTED PRIVATE KEY":
		key, err = decryptPKCS8(der, password)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default:
		return nil, fmt.Errorf("is of the unknown type %q", block.Type)
	}
	switch {
	case err != nil && legacy:
		// The old format has no checksum: one wrong password in 256
		// looks right until here.
		return nil, errWrongPassword
	case err != nil && encrypted:
		return nil, fmt.Errorf("cannot be decrypted: %w", err) // says when the password is wrong
	case err != nil:
		return nil, fmt.Errorf("is malformed: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("cannot sign")
	}
	return signer, nil
}

// decryptPKCS8 decrypts a PKCS #8 key (PBES2, RFC 8018).
func decryptPKCS8(der []byte, password Secret) (key any, err error) {
	// The library hands lengths from the file to crypto/cipher, which
	// panics when they are wrong.
	defer func() {
		if recover() != nil {
			err = errors.New("wrong lengths")
		}
	}()
	return pkcs8.ParsePKCS8PrivateKey(der, []byte(password))
}

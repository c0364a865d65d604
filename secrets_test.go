package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// noSecret fails the test if text, or err in any way it can be printed, holds
// one of secrets.
func noSecret(t *testing.T, err error, text string, secrets ...string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(text)
	if err != nil {
		fmt.Fprintf(&b, "\n%v\n%+v\n%#v\n%q", err, err, err, err)
		if j, jsonErr := json.Marshal(err); jsonErr == nil {
			b.Write(j)
		}
		var diags hcl.Diagnostics
		if errors.As(err, &diags) {
			for _, d := range diags {
				fmt.Fprintf(&b, "\n%+v\n%v", *d, d)
				if d.Expression != nil || d.EvalContext != nil || d.Extra != nil {
					t.Errorf("diagnostic carries an expression, a context or an extra: %v", d)
				}
			}
		}
		if writeErr := WriteDiagnostics(&b, err); writeErr != nil {
			t.Errorf("WriteDiagnostics: %v", writeErr)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(b.String(), secret) {
			t.Errorf("secret %q is in:\n%s", secret, b.String())
		}
	}
}

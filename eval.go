package webhook

import (
	"bytes"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// A scalar is the value of an expression or a bare word.
type scalar struct {
	kind scalarKind
	text string     // of stringScalar and wordScalar
	num  *big.Float // of numberScalar
	yes  bool       // of boolScalar

	// computed: not a plain literal. Text from env and file() may then stand
	// for a number or a boolean, which the file has to write as such.
	computed bool
}

type scalarKind uint8

const (
	otherScalar scalarKind = iota // null, a list, an object
	stringScalar
	numberScalar
	boolScalar
	wordScalar // a bare word that is none of the above
)

// maxExpr bounds an expression that is more than a plain string, because
// HCL's parser is recursive.
const maxExpr = 64 << 10

// scalar evaluates n, whose value should be what want says. It reports its
// problems.
func (d *decoder) scalar(n *node, want string) (scalar, bool) {
	text := d.src[n.start:n.end]
	switch n.kind {
	case objectNode, listNode:
		d.wrongType(n, want)
		return scalar{}, false
	case wordNode:
		word := string(text)
		switch strings.ToLower(word) {
		case "true", "false":
			return scalar{kind: boolScalar, yes: equalFold(word, "true")}, true
		case "null":
			return scalar{}, true
		}
		return scalar{kind: wordScalar, text: word}, true
	}
	if !utf8.Valid(text) {
		d.problem(n.span, "Invalid character", "The file has to be UTF-8; this value is not.")
		return scalar{}, false
	}
	if text[0] == '"' {
		if s, ok := literal(text[1 : len(text)-1]); ok {
			return scalar{kind: stringScalar, text: s}, true
		}
	}
	if len(text) > maxExpr {
		d.problem(n.span, "Expression too long", "A value with functions or a template is at most 64 KiB long.")
		return scalar{}, false
	}
	x := expression{node: n, text: text}
	if n.escaped {
		inside, at, _ := plainTemplate(text[1 : len(text)-1])
		x.text, x.at = slices.Concat(text[:1], inside, text[:1]), at
	}
	expr, diags := hclsyntax.ParseExpression(x.text, "", hcl.Pos{Line: 1, Column: 1})
	if diags.HasErrors() {
		d.problem(x.within(diags), "Invalid expression", `The value cannot be understood. Inside a string \" is a quote, \\ a backslash, $${ a literal ${ and %%{ a literal %{.`)
		return scalar{}, false
	}
	if !d.understood(x, expr) {
		return scalar{}, false
	}
	return d.eval(x, expr)
}

// An expression is a node whose value HCL reads.
type expression struct {
	*node
	text []byte // as HCL writes it
	at   []int  // where each byte inside its quotes comes from, counted from the first, unless as it is
}

// spanOf returns where in the file a part of the expression is.
func (x *expression) spanOf(r hcl.Range) span {
	place := func(off int) int {
		if x.at == nil || off == 0 {
			return x.start + off
		}
		if off > len(x.at) {
			return x.end
		}
		return x.start + 1 + x.at[off-1]
	}
	return span{place(r.Start.Byte), place(r.End.Byte)}
}

// within returns where in the expression the first of diags is.
func (x *expression) within(diags hcl.Diagnostics) span {
	if at := diags[0].Subject; at != nil {
		if s := x.spanOf(*at); x.start <= s.start && s.start < s.end && s.end <= x.end {
			return s
		}
	}
	return x.span
}

// understood reports every variable and every function that there is not, and
// numbers that would take a gigabyte to write out.
func (d *decoder) understood(whole expression, expr hclsyntax.Expression) bool {
	const mostBits = 1024
	known := true
	_ = hclsyntax.VisitAll(expr, func(x hclsyntax.Node) hcl.Diagnostics {
		switch x := x.(type) {
		case *hclsyntax.FunctionCallExpr:
			if x.Name != "env" && x.Name != "file" {
				known = false
				d.problem(whole.spanOf(x.NameRange), "Unknown function", `The functions are env("NAME") and file("path").`)
			}
		case *hclsyntax.LiteralValueExpr:
			if x.Val.Type() != cty.Number {
				break
			}
			if n := x.Val.AsBigFloat(); n.IsInf() || n.MantExp(nil) > mostBits {
				known = false
				d.problem(whole.spanOf(x.SrcRange), "Value out of range", "The number is too large.")
			}
		}
		return nil
	})
	for _, v := range expr.Variables() {
		known = false
		d.problem(whole.spanOf(v.SourceRange()), "Unknown variable", `There are no variables. Text is written in double quotes, an environment variable env("NAME"), and a literal ${ inside quotes $${.`)
	}
	return known
}

// eval evaluates an expression in which all names are known. Where it can,
// it avoids cty, which brings strings into Unicode's normal form.
func (d *decoder) eval(whole expression, expr hclsyntax.Expression) (scalar, bool) {
	switch x := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		return d.eval(whole, x.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return d.eval(whole, x.Wrapped)
	case *hclsyntax.TemplateExpr:
		return d.template(whole, x)
	case *hclsyntax.LiteralValueExpr:
		raw, ok := literal(x.SrcRange.SliceBytes(whole.text))
		if ok && x.Val.Type() == cty.String && x.Val.AsString() == cty.NormalizeString(raw) {
			return scalar{kind: stringScalar, text: raw}, true
		}
	case *hclsyntax.FunctionCallExpr:
		if len(x.Args) != 1 || x.ExpandFinal {
			break
		}
		arg, ok := d.eval(whole, x.Args[0])
		if !ok {
			return scalar{}, false
		}
		if arg.kind != stringScalar {
			break
		}
		text, err := d.call(x.Name, arg.text, !arg.computed)
		if err != nil {
			d.problem(whole.spanOf(x.Range()), err.summary, err.text)
			return scalar{}, false
		}
		return scalar{kind: stringScalar, text: text, computed: true}, true
	}
	v, diags := expr.Value(&hcl.EvalContext{Functions: map[string]function.Function{
		"env": d.function("env"), "file": d.function("file"),
	}})
	if diags.HasErrors() {
		err := &invalid{"Invalid expression", "The value cannot be computed: an operand or an argument does not fit."}
		if extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](diags[0]); ok {
			_ = errors.As(extra.FunctionCallError(), &err)
		}
		d.problem(whole.within(diags), err.summary, err.text)
		return scalar{}, false
	}
	_, literal := expr.(*hclsyntax.LiteralValueExpr)
	s := scalar{computed: !literal}
	switch {
	case v.IsNull() || !v.IsKnown():
	case v.Type() == cty.String:
		s.kind, s.text = stringScalar, v.AsString()
	case v.Type() == cty.Number:
		s.kind, s.num = numberScalar, v.AsBigFloat()
	case v.Type() == cty.Bool:
		s.kind, s.yes = boolScalar, v.True()
	}
	return s, true
}

// template evaluates a string with interpolations.
func (d *decoder) template(whole expression, x *hclsyntax.TemplateExpr) (scalar, bool) {
	var text strings.Builder
	good, computed := true, false
	for _, part := range x.Parts {
		s, ok := d.eval(whole, part)
		good = good && ok
		computed = computed || s.computed
		switch s.kind {
		case stringScalar:
			text.WriteString(s.text)
		case numberScalar:
			text.WriteString(s.num.Text('f', -1))
		case boolScalar:
			text.WriteString(strconv.FormatBool(s.yes))
		default:
			if ok {
				good = false
				d.problem(whole.spanOf(part.Range()), "Invalid expression", "Only a string, a number or a boolean can be part of a string.")
			}
		}
	}
	return scalar{kind: stringScalar, text: text.String(), computed: computed}, good
}

// function is call for expressions that HCL evaluates itself.
func (d *decoder) function(name string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := d.call(name, args[0].AsString(), false)
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(text), nil
		},
	})
}

// call calls env or file. The error says what arg was only if it is shown,
// because a computed one may be secret.
func (d *decoder) call(name, arg string, shown bool) (string, *invalid) {
	if name == "env" {
		if text, ok := os.LookupEnv(arg); ok {
			return text, nil
		}
		if !shown || !envName.MatchString(arg) {
			return "", &invalid{"Unset environment variable", "The environment variable is not set."}
		}
		return "", &invalid{"Unset environment variable", "The environment variable " + arg + " is not set."}
	}
	d.files = append(d.files, d.path(arg))
	text, err := readRegular(d.path(arg), maxValueFile)
	if err != nil {
		return "", &invalid{"Unreadable file", "The file cannot be read: " + reason(err) + "."}
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	return string(bytes.TrimSuffix(text, []byte("\r"))), nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// path makes a path relative to the configuration file's folder.
func (d *decoder) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}

package mailcatcher

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
)

// Command is 'rabbet mail'.
type Command struct{}

// Run serves until ctx is done.
func (Command) Run(ctx context.Context, c *config.Config) error {
	log := logs.New(c, "console")
	smtpListener, err := serve.Listen("SMTP_ADDR", c.SMTPAddr)
	if err != nil {
		return err
	}
	pageListener, err := serve.Listen("MAIL_ADDR", c.MailAddr)
	if err != nil {
		smtpListener.Close()
		return err
	}
	catcher := &Catcher{}
	stopSMTP := catcher.Serve(smtpListener, log)
	defer stopSMTP()
	stopPage := serve.HTTP(&http.Server{Handler: catcher, ReadHeaderTimeout: 5 * time.Second}, pageListener, log)
	defer stopPage()
	log.Info("catching mail", zap.String("smtp", "smtp://"+c.SMTPAddr), zap.String("page", "http://"+c.MailAddr+"/"))
	<-ctx.Done()
	return nil
}
